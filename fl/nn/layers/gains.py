"""Gains of activations: the factor γ that gives γ·f(x) variance 1 for standard normal x."""

import copy
import math

import torch
from torch import nn

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
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    # A learnable scalar a channel is initially the same in all of them: one channel is enough.
    y = copy.deepcopy(activation).double()(x.view(-1, 1)).view(-1)
    mean, square = (torch.trapezoid(value * density, x).item() for value in (y, y**2))
    return mean, square - mean**2
