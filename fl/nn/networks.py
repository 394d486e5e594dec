"""Builds the network that the knobs describe, with its initial weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType

import torch
from torch import nn

from fl.config import Experiment, Network
from fl.config.components import FromPackage, is_component
from fl.config.parsing import Value, cut
from fl.config.parts import CLIP
from fl.nn.architectures.cnn import CNN
from fl.nn.architectures.efficientnet import EfficientNet
from fl.nn.architectures.ffnn import FFNN
from fl.nn.architectures.nfnet import VARIANTS, NFNet
from fl.nn.architectures.plainnet import PlainNet
from fl.nn.architectures.resnet import ResNet
from fl.nn.architectures.resnet import auto_width as resnet_width
from fl.nn.architectures.resnet_v2 import ResNetV2
from fl.nn.architectures.resnet_v2 import auto_width as resnet_v2_width
from fl.nn.architectures.vit import ViT
from fl.nn.criticality import begin, targeted
from fl.nn.foreign import building as foreign
from fl.nn.foreign.building import Make
from fl.nn.foreign.packages import maker
from fl.nn.initialization import Scheme
from fl.nn.recipe import Recipe
from fl.nn.recipes import OWN, RECIPES, find
from fl.nn.size import check_size, layers
from fl.nn.slots import Size, Slots


@dataclass(frozen=True)
class Skeleton:
    """A family of networks, and what the knobs' `auto` means for it."""

    make: Callable[[Slots, Sequence[int], int, Size], nn.Module]
    """(slots, shape of an example, classes, size) -> network."""
    depth: int | str
    """The depth that `auto` stands for."""
    width: Callable[[int], int]
    """Returns the width that `auto` stands for, given the depth."""
    stem_stride: int = 2
    """The stem stride that `auto` stands for."""
    stem_strides: tuple[int, ...] = (1, 2, 4)
    """The stem strides that the family can have."""
    variants: tuple[str, ...] = ()
    """The names that `network.depth` may have, in order of depth; empty where it is a number."""
    native: type[nn.Module] = nn.ReLU
    """The activation of the family's paper."""
    init: Scheme = "he"
    """The initial weights that `auto` stands for, unless the recipe has its own."""

    def number(self, depth: int | str) -> int:
        """Return `Size.depth` for a depth that `_check_depth` accepts."""
        return self.variants.index(depth) if isinstance(depth, str) else depth


_ROWS: dict[str, Skeleton] = {
    "plainnet": Skeleton(PlainNet, depth=8, width=lambda depth: 16, stem_strides=(1, 2)),
    "resnet": Skeleton(ResNet, depth=20, width=resnet_width),
    "resnet-v2": Skeleton(ResNetV2, depth=20, width=resnet_v2_width),
    "nfnet": Skeleton(
        NFNet,
        depth="F0",
        width=lambda depth: 128,
        stem_stride=4,
        stem_strides=(4,),
        variants=VARIANTS,
        native=nn.GELU,
    ),
    "efficientnet": Skeleton(EfficientNet, depth=16, width=lambda depth: 32, native=nn.SiLU),
    "cnn": Skeleton(
        CNN, depth=CNN.DEPTH, width=lambda depth: 16, stem_stride=1, stem_strides=(1, 2)
    ),
    "ffnn": Skeleton(FFNN, depth=11, width=lambda depth: 100, stem_stride=1),
    "vit": Skeleton(
        ViT, depth=6, width=lambda depth: 192, stem_stride=4, native=nn.GELU, init="lecun"
    ),
}
SKELETONS: Mapping[str, Skeleton] = MappingProxyType(_ROWS)
"""Every family by the name that the knob `network.kind` takes. It can't be changed; a network of a
user's is a component."""


def resolve_auto(knobs: Experiment) -> Experiment:
    """Return an experiment with numbers in the place of every `auto` that is about its network.

    A value that is given takes precedence, then that of the recipe, then that of the skeleton.
    A network that is not ours keeps its initial weights with the recipe `own`.

    Raises:
        ValueError: an unknown recipe, or a recipe, a depth or a stem stride that does not fit the
            skeleton.
    """
    recipe = chosen_recipe(knobs)
    row = find(recipe) if isinstance(recipe, str) else recipe
    size = _resolved(knobs.network, row, knobs.recipe)
    flat: dict[str, Value] = {
        "network.depth": size.depth,
        "network.width": size.width,
        "network.stem-stride": size.stem_stride,
        "network.init": size.init,
    }
    if knobs.client.clip == "auto":
        alone = knobs.privacy.per_example_clip > 0  # then each example's gradient is clipped
        flat["client.clip"] = "none" if alone else row.clip or CLIP
    return knobs.replace(flat)


def chosen_recipe(knobs: Experiment) -> str | Recipe:
    """Return the recipe of an experiment: its name, or the object where it is a user's.

    Raises:
        ValueError: the user's object is no recipe.
    """
    mine = knobs.component("recipe")
    if not (mine is None or isinstance(mine, Recipe)):
        raise ValueError(f"recipe={knobs.recipe} is a {type(mine).__name__}, expected an fl.Recipe")
    return mine or knobs.recipe


def build(
    network: Network,
    recipe: str | Recipe,
    shape: Sequence[int],
    classes: int,
    generator: torch.Generator,
    make: Make | FromPackage | None = None,
) -> nn.Module:
    """Return a network from examples (batch, channels, *space) to logits (batch, classes).

    It is a pure function of its arguments and the generator's state: torch's global generator
    is neither read nor moved.

    Args:
        network: the skeleton; `auto` is resolved as in `resolve_auto`.
        recipe: a row of `RECIPES` that fits it, or a recipe of the user's.
        shape: (channels, *space) of an example: one dimension of space for signals, two for
            images, three for volumes.
        classes: the number of classes.
        generator: draws the weights, and moves on.
        make: makes a network that is not ours, which `network.kind` names then.

    Raises:
        ValueError: an unknown recipe, one that does not fit, or a depth, width or stem stride
            that the skeleton can't have; and what `fl.nn.foreign.building.build` raises.
    """
    name = recipe if isinstance(recipe, str) else recipe.label
    row = find(recipe) if isinstance(recipe, str) else recipe
    network = _resolved(network, row, name)
    if make is not None:
        make = maker(make) if isinstance(make, FromPackage) else make
        return foreign.build(make, network, recipe, shape, classes, generator)
    skeleton = SKELETONS[network.kind]
    groups = None if network.groups == "auto" else network.groups
    slots = Slots(row, len(shape) - 1, network.per_channel, skeleton.native, groups)
    chosen = _size(network)
    make = partial(skeleton.make, slots, shape, classes, chosen)
    words = f"network.kind={network.kind}, depth={network.depth}, width={cut(network.width)}"
    depth = layers(network.kind, chosen.depth)
    check_size(words, make, depth, chosen.width, (prod(shape), classes))
    net = make()
    target = targeted(network.gain, skeleton.native)
    begin(net, network.init, generator, shape, target)  # pyrefly: ignore
    return net


def _resolved(network: Network, row: Recipe, recipe: str) -> Network:
    """Return a network's knobs without `auto`."""
    foreign = is_component(network.kind)
    resolved = _resolved_foreign(network, row) if foreign else _resolved_ours(network, row, recipe)
    if network.gain != 1 and resolved.init != "critical":
        raise ValueError(
            f"network.gain={network.gain} needs network.init=critical, found {resolved.init}"
        )
    targeted(network.gain)
    return resolved


def _resolved_ours(network: Network, row: Recipe, recipe: str) -> Network:
    skeleton = SKELETONS[network.kind]
    _check_fit(row, recipe, network)
    _check_groups(row, recipe, network)
    _check_squeeze(network)
    _check_stem(skeleton, network)
    depth = skeleton.depth if network.depth == "auto" else network.depth
    _check_depth(skeleton, network.kind, depth)
    chosen = {
        "depth": depth,
        "width": skeleton.width(skeleton.number(depth))
        if network.width == "auto"
        else network.width,
        "init": (row.init or skeleton.init) if network.init == "auto" else network.init,
        "stem_stride": (
            skeleton.stem_stride if network.stem_stride == "auto" else network.stem_stride
        ),
    }
    return network.model_copy(update=chosen)


def _resolved_foreign(network: Network, row: Recipe) -> Network:
    """Return the knobs of a network that is not ours, of which only `init` can be `auto`."""
    for name, field in Network.model_fields.items():
        if (
            name not in ("kind", "init", "gain", "options")
            and getattr(network, name) != field.default
        ):
            raise ValueError(
                f"network.{field.alias}={getattr(network, name)} is not for network.kind="
                f"{network.kind}, which has network.options of its own"
            )
    auto = "own" if row is OWN else row.init or "he"
    init = auto if network.init == "auto" else network.init
    return network.model_copy(update={"init": init})


def _check_fit(row: Recipe, recipe: str, network: Network) -> None:
    kind = network.kind
    if row is OWN or network.init == "own":
        knob = f"recipe={recipe}" if row is OWN else "network.init=own"
        raise ValueError(f"{knob} is for a network of your own, and network.kind={kind} is ours")
    if row.fits and kind not in row.fits:
        fitting = ", ".join(sorted(row.fits))
        raise ValueError(f"recipe={recipe} does not fit network.kind={kind}; it fits {fitting}")


def _check_groups(row: Recipe, recipe: str, network: Network) -> None:
    if network.groups != "auto" and not row.grouped:
        having = ", ".join(name for name, known in RECIPES.items() if known.grouped)
        raise ValueError(
            f"network.groups={network.groups} is for the recipes {having}, found recipe={recipe}"
        )


def _check_squeeze(network: Network) -> None:
    if network.squeeze and network.kind not in ("resnet", "resnet-v2"):
        raise ValueError(
            f"network.squeeze={network.squeeze} is for network.kind=resnet or resnet-v2, found "
            f"{network.kind}"
        )


def _check_stem(skeleton: Skeleton, network: Network) -> None:
    if network.stem_stride not in ("auto", *skeleton.stem_strides):
        possible = " or ".join(map(str, skeleton.stem_strides))
        raise ValueError(
            f"network.stem-stride={network.stem_stride} does not fit network.kind={network.kind}; "
            f"use {possible}"
        )


def _check_depth(skeleton: Skeleton, kind: str, depth: int | str) -> None:
    fits = depth in skeleton.variants if skeleton.variants else isinstance(depth, int)
    if not fits:
        possible = ", ".join(skeleton.variants) or "a number of layers"
        raise ValueError(f"network.depth={depth} does not fit network.kind={kind}; use {possible}")


def _size(network: Network) -> Size:
    return Size(
        depth=SKELETONS[network.kind].number(network.depth),
        width=network.width,  # pyrefly: ignore
        stem_stride=network.stem_stride,  # pyrefly: ignore
        dropout=network.dropout,
        stochastic_depth=network.stochastic_depth,
        feature_norm=network.feature_norm,
        squeeze=network.squeeze,
    )
