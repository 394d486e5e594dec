"""What layers make of signals and gradients, and initial weights by which signals keep their size.

Signals: the pre-activations z of a layer are taken to be N(0, 1), and f is the function between
them and the next layer. By weights N(0, s/fan_in) that layer multiplies the mean square of signals
by s·E[f(z)²] and, of gradients, by s·E[f'(z)²]. He's weights (arXiv 1502.01852) have s = 2, which
keeps both for ReLU. For other functions s = 1/E[f²] is derived (ours) in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fl.config.parsing import ConfigError
from fl.nn.foreign.observed import observe
from fl.nn.foreign.origins import Origins, calls_of, function_of, units
from fl.nn.initialization import WEIGHED, Scheme, initialize
from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.gains import Function, Moments, bends, moments
from fl.nn.layers.merges import Merge
from fl.nn.recipe import Place, Recipe
from fl.nn.recipes import RECIPES, find

HE = 2.0
"""s of He's weights: fan_in times their variance."""


@dataclass(frozen=True)
class Hidden:
    """A convolution or linear layer behind an activation, which is not the classifier."""

    name: str
    layer: WEIGHED
    function: Moments
    """Moments of the function in front of it."""

    @property
    def strength(self) -> float:
        """s: fan_in times the mean square of its weights."""
        weight = self.layer.weight.detach()
        return float(weight.double().square().mean() * weight[0].numel())


@dataclass
class Chain:
    """What a pass has shown of a network."""

    hidden: list[Hidden] = field(default_factory=list)
    """The layers behind activations, in order of execution."""
    plain: bool = True
    """Whether the network is a row of layers, without normalizers that look at other values,
    standardized weights and merges. Only then the factors of layers multiply to the network's."""

    @property
    def forward(self) -> float | None:
        """The mean over layers of 2·E[f²], their factor forward with He's weights."""
        return _mean([HE * one.function.square for one in self.hidden])

    @property
    def backward(self) -> float | None:
        """The mean over layers of χ = 2·E[f'²], their factor backward with He's weights."""
        return _mean([HE * one.function.slope for one in self.hidden])

    @property
    def depth(self) -> tuple[float, float] | None:
        """The product over layers of s·E[f²] and of s·E[f'²]; None where the network is no row."""
        if not (self.plain and self.hidden):
            return None
        forward, backward = 1.0, 1.0
        for one in self.hidden:
            forward *= one.strength * one.function.square
            backward *= one.strength * one.function.slope
        return forward, backward


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def begin(
    network: nn.Module,
    scheme: Scheme,
    generator: torch.Generator,
    shape: Sequence[int],
    target: Callable[[Moments], float],
) -> None:
    """Give a network its initial weights.

    Args:
        network: is filled in place.
        scheme: as for `fl.nn.initialization.initialize`; `critical` needs what follows.
        generator: as there.
        shape: (channels, *space) of an example.
        target: as for `rescale`.

    Raises:
        ConfigError: as `rescale`.
    """
    initialize(network, scheme, generator)
    if scheme == "critical":
        rescale(network, shape, target)


def targeted(gain: float | str, native: type[nn.Module] = nn.ReLU) -> Callable[[Moments], float]:
    """Return which s the knob `network.gain` asks for behind an activation, by its moments.

    * a number G: s = G/E[f²], so that the mean square of signals is multiplied by G;
    * `backward:X`: s = X/E[f'²], so that the mean square of gradients is multiplied by X;
    * a recipe's name: G is 2·E[f²] of its activation.

    Raises:
        ValueError: it is none of these.
    """
    kind, _, number = str(gain).partition(":")
    try:
        if kind == "backward":
            chi = _positive(number)
            return lambda function: chi / function.slope
        forward = HE * of_recipe(find(kind), native).square if kind in RECIPES else _positive(kind)
        return lambda function: forward / function.square
    except ValueError:
        raise ValueError(
            f"network.gain={gain} should be a number above 0, 'backward:X' with such a number, or "
            "the name of a recipe, as 'zc-swish'"
        ) from None


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise ValueError
    return number


def rescale(network: nn.Module, shape: Sequence[int], target: Callable[[Moments], float]) -> None:
    """Give the weights behind each activation the mean square s/fan_in, from 1/fan_in.

    Layers behind no activation, such as the first, and the classifier keep their N(0, 1/fan_in), as
    do standardized weights, which have no size of their own. What pools, gates and merges do is not
    made good, as it isn't by He's weights: the branches of a sum keep the mean square of a layer of
    their own, and a sum of two signals of mean square 1 has 2. Behind a merge the sum counts as
    N(0, 1) again. All this is derived (ours).

    Args:
        network: is changed in place; its weights are N(0, 1/fan_in).
        shape: (channels, *space) of an example.
        target: the moments of a layer's activation -> s.

    Raises:
        ConfigError: it calls activations as functions, or one of them is constant.
    """
    _check_functions(network, torch.zeros(1, *shape))
    for one in look(network, shape).hidden:
        if isinstance(one.layer, StandardizedConv):
            continue
        if min(one.function.square, one.function.slope) < 1e-12:
            raise ConfigError(
                f"network.init=critical: the activation in front of {one.name} is constant"
            )
        with torch.no_grad():
            one.layer.weight.mul_(target(one.function) ** 0.5)


def of_recipe(row: Recipe, native: type[nn.Module]) -> Moments:
    """Return the moments of a recipe's activation, behind what it has instead of a normalizer.

    Args:
        row: the recipe.
        native: the activation of the network's own paper.
    """
    place = Place(1, native=native)
    parts = [function_of(layer, (1, 1)) for layer in (row.norm(place), row.activation(place))]
    return moments(_composed([part for part in parts if part]))


def look(network: nn.Module, shape: Sequence[int]) -> Chain:
    """Return what stands in front of each layer with weights; the network stays as it is.

    An example of zeros is passed in evaluation mode, and the graph of autograd is followed from
    each layer's input to the layers where it comes from. So whatever a network does in between,
    such as pooling, a function is found that is a module and elementwise.

    Args:
        network: any.
        shape: (channels, *space) of an example.
    """
    calls = calls_of(network, shape)
    origins = Origins({call.output.node: call for call in reversed(calls)})
    *_, classifier = (layer for layer in network.modules() if isinstance(layer, WEIGHED))
    found, known = Chain(), set()
    for call in calls:
        before = origins.of(call)
        found.plain &= len(before) <= 1 and not call.normalizes
        if not isinstance(call.module, WEIGHED) or id(call.module) in known:
            continue
        known.add(id(call.module))
        functions = [_composed(origins.chain(one)) for one in before]
        bent = [moments(function) for function in functions if bends(function)]
        if bent and call.module is not classifier:
            largest = max(bent, key=lambda each: each.square)  # a gate's is below a signal's
            found.hidden.append(Hidden(call.name, call.module, largest))
    found.plain &= not any(isinstance(m, Merge | StandardizedConv) for m in network.modules())
    return found


def _composed(functions: Sequence[Function]) -> Function:
    def function(x: Tensor) -> Tensor:
        for one in functions:
            x = one(x)
        return x

    return function


def _check_functions(network: nn.Module, example: Tensor) -> None:
    """Refuse a network that calls activations as functions, which can't be told from its layers."""
    own = tuple(name for name, _, _ in units(network))
    for where, function, normalizes in observe(network, example).functions:
        if not normalizes and not f"{where}.".startswith(tuple(f"{name}." for name in own)):
            raise ConfigError(
                f"network.init=critical can't see functions: {function} in {where or 'forward'}; "
                "make it a module, such as nn.ReLU"
            )
