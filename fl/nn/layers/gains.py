"""Moments of activations over N(0, 1), and the factor γ that gives γ·f(x) variance 1."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

PUBLISHED: dict[type[nn.Module], float] = {
    nn.Identity: 1.0,
    nn.ReLU: 1.7139588594436646,
    nn.SiLU: 1.7881293296813965,
    nn.GELU: 1.7015043497085571,
    nn.SELU: 1.0008515119552612,
    nn.ELU: 1.2716004848480225,
    nn.CELU: 1.270926833152771,
    nn.LeakyReLU: 1.70590341091156,
    nn.Tanh: 1.5939117670059204,
    nn.ReLU6: 1.7131484746932983,
    nn.Sigmoid: 4.803835391998291,
    nn.Softplus: 1.9203323125839233,
    nn.Softsign: 2.338853120803833,
    nn.LogSigmoid: 1.9193484783172607,
}
"""γ of arXiv 2101.08692's authors' code, sampled by them (ReLU's exact value is 1.712859)."""


def gain(activation: nn.Module) -> float:
    """Return γ = 1 / std(f(x)) for x ~ N(0, 1), with f as it is initially.

    The published constant where there is one, and `quadrature` for our own activations. Source:
    arXiv 2101.08692, section 4.
    """
    published = PUBLISHED.get(type(activation))
    return quadrature(activation) if published is None else published


def quadrature(activation: nn.Module) -> float:
    """Compute γ from the variance that `over_normal` finds.

    Raises:
        ValueError: f is constant.
    """
    _, variance = over_normal(activation)
    if variance < 1e-12:
        raise ValueError(f"{type(activation).__name__} is constant and has no gain")
    return variance**-0.5


@torch.no_grad()
def over_normal(activation: nn.Module) -> tuple[float, float]:
    """Return mean and variance of f(x) for x ~ N(0, 1), with f as it is initially.

    By the trapezoid rule over [-12, 12], right to 1e-6 for continuous f. For a smooth f the rule's
    error is far below that; a kink, such as ReLU's, falls on a node.
    """
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64, device="cpu")
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    # A learnable scalar a channel is initially the same in all of them: one channel is enough.
    y = copy.deepcopy(activation).double()(x.view(-1, 1)).view(-1)
    mean, square = (torch.trapezoid(value * density, x).item() for value in (y, y**2))
    return mean, square - mean**2


Function = Callable[[Tensor], Tensor]
"""An elementwise function of a vector in float64."""


@dataclass(frozen=True)
class Moments:
    """What a function f makes of x ~ N(0, 1), forward and backward."""

    square: float
    """E[f(x)²]."""
    slope: float
    """E[f'(x)²]."""


def moments(function: Function) -> Moments:
    """Return E[f(x)²] and E[f'(x)²] for x ~ N(0, 1), with f' by automatic differentiation.

    By the midpoint rule on [-12, 12] with steps of 0.001. A kink at a multiple of the step, such as
    ReLU's, falls between two nodes, so that both are right to 1e-6. The terms are added exactly,
    so the sums are the same on any number of threads.

    Args:
        function: an elementwise function of a vector in float64.
    """
    step = 0.001
    x = (torch.arange(24_000, dtype=torch.float64) + 0.5) * step - 12
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * step
    with torch.enable_grad():
        x.requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    square, slope = (math.fsum((value.detach() ** 2 * density).tolist()) for value in (y, slope))
    return Moments(square, slope)


def bends(function: Function) -> bool:
    """Return whether a function is no straight line."""
    with torch.no_grad():
        y = function(torch.linspace(-3, 3, 61, dtype=torch.float64))
    line = torch.linspace(float(y[0]), float(y[-1]), 61, dtype=torch.float64)
    return bool((y - line).abs().max() > 1e-6)


def elementwise(layer: nn.Module, shape: Sequence[int]) -> Function | None:
    """Return what a layer does to its first channel, as it is now; None if it is not elementwise.

    That is tried out: a number is changed in one channel of one example, and nothing else may
    change then. Where channels stand, second or last, is tried out, too.

    Args:
        layer: any.
        shape: that of an input, with its batch.
    """
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    held = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    held = {name: t.double() if t.is_floating_point() else t for name, t in held.items()}
    whole = partial(functional_call, layer, held)
    for axis in (1, -1):
        sides = [1] * (len(shape) - 1)
        sides[axis - 1 if axis > 0 else axis] = shape[axis]
        if _changes_alone(whole, sides):
            return _narrow(layer, held, shape[axis], len(sides)) or partial(_first, whole, sides)
    return None


@torch.no_grad()
def _narrow(
    layer: nn.Module, held: Mapping[str, Tensor], channels: int, sides: int
) -> Function | None:
    """Return what a layer does to its first channel with the numbers of that channel alone.

    That takes the time of one channel. None where it is something else.
    """
    first = {name: t[:1] if t.shape == (channels,) else t for name, t in held.items()}
    narrow = partial(_first, partial(functional_call, layer, first), [1] * sides)
    return narrow if _changes_alone(narrow, []) else None


def _first(whole: Function, sides: Sequence[int], x: Tensor) -> Tensor:
    """Return what a layer makes of a vector in its first channel."""
    wide = x.view(-1, *[1] * len(sides)).expand(-1, *sides).clone()
    return whole(wide).reshape(len(x), -1)[:, 0]


@torch.no_grad()
def _changes_alone(whole: Function, sides: Sequence[int]) -> bool:
    """Return whether a layer's output changes only where its input does."""
    x = torch.linspace(-3, 3, 8 * math.prod(sides), dtype=torch.float64).view(8, *sides)
    other = x.clone()
    other.view(-1)[0] += 1
    try:
        found, changed = whole(x.clone()), whole(other)
        same = torch.equal(found.reshape(-1)[1:], changed.reshape(-1)[1:])
    except Exception:  # a layer that can't take such inputs
        return False
    return same and found.shape == x.shape and bool(found.min() < found.max())
