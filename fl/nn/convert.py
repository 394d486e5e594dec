"""Recipes for networks that we never saw: layers are replaced, and nothing else is touched."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from fl.config.parsing import ConfigError
from fl.nn.criticality import begin, targeted
from fl.nn.foreign.observed import (
    CONVOLUTIONS,
    Seen,
    activation,
    is_norm,
    is_strange_norm,
    observe,
    standardizes,
)
from fl.nn.foreign.replacements import (
    Conv,
    kernel,
    likely_shape,
    not_in_place,
    own_batch_norm,
    own_noise,
    plain_again,
    replace_all,
    with_weights,
)
from fl.nn.layers.activations import Activation
from fl.nn.layers.convs import plain
from fl.nn.layers.gains import gain
from fl.nn.layers.layouts import ChannelsSecond, in_a_row
from fl.nn.recipe import Place, Recipe
from fl.nn.recipes import OWN, RECIPES, find
from fl.reproducibility.errors import placed


def convert(
    module: nn.Module,
    recipe: str | Recipe,
    *,
    shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Put a recipe's layers into any network, and return it.

    ==================================  ========================================================
    in the network                      becomes
    ==================================  ========================================================
    Batch-, Group-, Layer-, Instance-,  the recipe's normalizer for as many channels, or what
    RMSNorm                             replaces it; LayerNorm of each position a transformer's
    ReLU, SiLU, GELU, LeakyReLU, …      the recipe's activation
    convolutions                        the recipe's, of the same shape and with the same weights
    scaled standardized convolutions    the recipe's, with its normalizer: they stand for both
    dropout, stochastic depth           `fl.nn.Noise`, which draws from each client's own stream
    ==================================  ========================================================

    Gates (sigmoid, tanh, softmax), linear layers, attention and sums stay as they are. The recipe
    `own` replaces only BatchNorm, by `fl.nn.BatchNorm` with the same numbers, and the last row.
    Where a network calls an activation as a function, such as `F.relu`, that stays, with a warning.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> convert(net, "zc-swish", shape=(1, 8, 8))[2]
        ZCSwish()

    Args:
        module: is changed in place.
        recipe: a row of `RECIPES` by its name, `own`, or a recipe of one's own.
        shape: (channels, *space) of an example. None: that of the first layer, with sides of 32.
        generator: draws initial weights by the recipe, or He's where it has none of its own. None:
            all weights stay as they are.

    Returns:
        The module, or what has replaced it where it is itself such a layer.

    Raises:
        ConfigError: the recipe can't be put into this network; the message is one line.
    """
    row = find(recipe) if isinstance(recipe, str) else recipe
    if row is OWN:
        return replace_all(replace_all(module, own_batch_norm), own_noise)
    name = recipe if isinstance(recipe, str) else row.label
    _check_recipe(row, name)
    example = torch.zeros(1, *(shape or likely_shape(module)))
    seen = _passed(module, example, "")
    _check_functions(row, name, seen)
    work = _Conversion(row, name, seen)
    converted = replace_all(replace_all(module, work.replacement), own_noise)
    work.check_promise()
    not_in_place(converted)
    _passed(converted, example, f" once it has the layers of recipe={name}")
    if generator is not None:
        begin(converted, row.init or "he", generator, tuple(example.shape[1:]), targeted(1.0))
    return converted


def _check_recipe(row: Recipe, name: str) -> None:
    if not row.converts:
        possible = ", ".join(key for key, other in RECIPES.items() if other.converts)
        raise ConfigError(
            f"recipe={name} changes how branches are merged, for which a network needs slots of "
            f"ours; for a network of your own take own, {possible}"
        )


def _passed(module: nn.Module, example: torch.Tensor, when: str) -> Seen:
    """Return what a pass of an example has shown."""
    try:
        return observe(module, example)
    except Exception as error:
        raise ConfigError(
            f"the network fails on zeros of shape {tuple(example.shape)}{when}: {placed(error)}"
        ) from error


def _check_functions(row: Recipe, name: str, seen: Seen) -> None:
    """Say which functions the network calls that the recipe would replace if they were modules."""
    native = type(row.activation(Place(1, native=nn.Mish))) is nn.Mish
    found: dict[bool, list[str]] = {True: [], False: []}
    for where, function, normalizes in seen.functions:
        found[normalizes].append(f"{function} in {where or 'forward'}")
    if found[True]:
        raise ConfigError(
            f"recipe={name} can't replace functions that normalize: {_few(found[True])}; make them "
            "modules, such as nn.BatchNorm2d"
        )
    if native or not found[False]:
        return
    said = f"recipe={name} can't replace functions: {_few(found[False])}"
    if not seen.activations:
        raise ConfigError(f"{said}; make them modules, such as nn.ReLU")
    warnings.warn(f"{said}; they stay as they are", stacklevel=3)


def _few(found: Sequence[str]) -> str:
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return ", ".join(found[:4]) + more


class _Conversion:
    """Makes what a recipe has for each layer of one network."""

    def __init__(self, row: Recipe, name: str, seen: Seen) -> None:
        self.row, self.name, self.seen = row, name, seen
        kinds = Counter(seen.activations.values())
        self.native = kinds.most_common(1)[0][0] if kinds else nn.ReLU
        self.norms = 0
        self.gain = 1.0
        if row.conv is not plain:
            self.gain = gain(row.activation(Place(1, native=self.native)))

    def replacement(self, name: str, layer: nn.Module) -> nn.Module:
        """Return what takes a layer's place: the layer itself where it is of no kind we replace."""
        if is_norm(layer):
            return self.norm(name, layer) if name in self.seen.shapes else layer
        if is_strange_norm(layer):
            raise ConfigError(
                f"{name}: no recipe but own knows how to replace {type(layer).__name__}"
            )
        if native := activation(layer):
            return self.activation(name, layer, native) if name in self.seen.shapes else layer
        return self.conv(name, layer) if isinstance(layer, CONVOLUTIONS) else layer

    def norm(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the recipe's normalizer, and behind it the parts that the old one has."""
        shape, axis = self.seen.shapes[name][0], self.seen.axes[name]
        each_position = len(getattr(layer, "normalized_shape", ())) == 1
        sequence = each_position and axis == -1 and len(shape) == 3
        if sequence and self.row.fits and "vit" not in self.row.fits:
            fitting = ", ".join(n for n, r in RECIPES.items() if r.converts and "vit" in r.fits)
            raise ConfigError(
                f"recipe={self.name} is for images, and {name} normalizes tokens; take {fitting}"
            )
        made = self._norm(name, shape, axis, each_position)
        behind = {key: part for key, part in layer.named_children() if not _nothing(part)}
        layers = in_a_row({"norm": made, **behind})
        return layers if layers is made else _marked(layers, "", axis)

    def _norm(self, name: str, shape: tuple[int, ...], axis: int, each: bool) -> nn.Module:
        channels, self.norms = shape[axis], self.norms + 1
        made = self.row.norm(Place(channels, native=self.native, tokens=each))
        if _nothing(made):
            return made
        positions = math.prod(shape[1:]) // channels
        if isinstance(made, nn.GroupNorm) and channels * positions == made.num_groups:
            raise ConfigError(
                f"recipe={self.name} leaves nothing of {name}'s input, {positions} position of "
                f"{channels} channels; take another recipe or larger images"
            )
        second = axis == 1 and (not each or len(shape) == 3)
        return _marked(made if second else ChannelsSecond(made, axis), "norm", axis)

    def activation(self, name: str, layer: nn.Module, native: type[nn.Module]) -> nn.Module:
        """Return the recipe's activation, or the layer itself where the recipe takes the network's.

        A layer that is called in several places stays one layer.
        """
        channels, axis = self.seen.channels(name), self.seen.axes[name]
        made = self.row.activation(Place(channels[0], native=native))
        if type(made) is native:
            return _marked(layer, "activation", axis)
        scalar = all(parameter.numel() == 1 for parameter in made.parameters())
        if len(channels) > 1 and not scalar:
            several = " and ".join(map(str, channels))
            raise ConfigError(
                f"{name} is called with {several} channels, and recipe={self.name} learns a number "
                "for each; give each place a module of its own"
            )
        known = isinstance(made, Activation) or type(made).__module__.startswith("torch.nn.")
        if axis == -1 and not (scalar and known):
            made = ChannelsSecond(made, axis)
        return _marked(made, "activation", axis)

    def conv(self, name: str, layer: Conv) -> nn.Module:
        """Return the recipe's convolution, with the layer's weights."""
        if self.row.conv is plain:
            made = plain_again(name, layer) if standardizes(layer) else layer
        else:
            try:
                made = self.row.conv(replace(kernel(name, layer), gain=self.gain))
            except ConfigError:
                raise
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
            with_weights(made, layer)
        if not type(layer).__name__.startswith("ScaledStdConv"):
            return made
        norm = self._norm(name, (1, layer.out_channels, 2), 1, False)
        if _nothing(norm):
            return made
        made.name_before = name  # pyrefly: ignore  # what its initial weights are drawn by
        return in_a_row({"conv": made, "norm": norm})

    def check_promise(self) -> None:
        """Refuse a recipe whose normalizer has found no place.

        Raises:
            ConfigError: the network has no normalizer, and the recipe has one.
        """
        if not self.norms and not _nothing(self.row.norm(Place(2, native=self.native))):
            raise ConfigError(
                f"recipe={self.name} takes the place of normalizers, and this network calls none "
                "that is a module"
            )


def _nothing(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Identity)


def _marked(layer: nn.Module, slot: str, axis: int) -> nn.Module:
    """Note down on a layer what `fl.nn.probes` has to know of it."""
    layer.slot, layer.channels_last = slot, axis == -1  # pyrefly: ignore
    return layer
