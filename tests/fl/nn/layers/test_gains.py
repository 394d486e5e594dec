"""γ = 1 / std(f(x)), x ~ N(0, 1): against closed forms, the published table and samples."""

import math

import pytest
import torch
from torch import Tensor, nn

from fl.nn.layers.activations import GALU, SALU, SWALU, ZCSwish
from fl.nn.layers.gains import PUBLISHED, gain, quadrature


class Abs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**3


def below(x: float) -> float:
    """Return Φ(x), the probability of a value below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


def from_moments(mean: float, square: float) -> float:
    return (square - mean**2) ** -0.5


def leaky(slope: float) -> float:
    return from_moments((1 - slope) / math.sqrt(2 * math.pi), (1 + slope**2) / 2)


def elu(alpha: float) -> float:
    """Complete the square in E[exp(kx); x < 0] = exp(k²/2)·Φ(-k)."""
    once, twice = math.exp(0.5) * below(-1), math.exp(2) * below(-2)
    mean = 1 / math.sqrt(2 * math.pi) + alpha * (once - 0.5)
    return from_moments(mean, 0.5 + alpha**2 * (twice - 2 * once + 0.5))


def relu6() -> float:
    density, beyond = math.exp(-18) / math.sqrt(2 * math.pi), below(-6)
    mean = 1 / math.sqrt(2 * math.pi) - density + 6 * beyond
    return from_moments(mean, 0.5 - beyond - 6 * density + 36 * beyond)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
CLOSED = [
    (nn.Identity(), 1.0),
    (nn.ReLU(), math.sqrt(2 / (1 - 1 / math.pi))),
    (nn.LeakyReLU(), leaky(0.01)),
    (nn.LeakyReLU(0.3), leaky(0.3)),
    (Abs(), (1 - 2 / math.pi) ** -0.5),
    (Cube(), 15**-0.5),
    (nn.ReLU6(), relu6()),
    (nn.ELU(), elu(1)),
    (nn.SELU(), elu(SELU_ALPHA) / SELU_SCALE),
    # E[x²Φ²] = 1/3 + 2·E[xΦφ] by Stein's lemma; E[xΦ] = E[φ].
    (nn.GELU(), from_moments(1 / (2 * math.sqrt(math.pi)), 1 / 3 + 1 / (2 * math.pi * 3**0.5))),
]


@pytest.mark.parametrize(("activation", "exact"), CLOSED, ids=lambda value: str(value))
def test_quadrature_equals_closed_forms(activation: nn.Module, exact: float) -> None:
    assert quadrature(activation) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.__name__)
def test_the_published_table_was_sampled_well(kind: type[nn.Module]) -> None:
    assert quadrature(kind()) == pytest.approx(PUBLISHED[kind], rel=2e-3)
    assert gain(kind()) == PUBLISHED[kind]


@pytest.mark.parametrize(
    ("activation", "known"),
    [
        (ZCSwish(1), 1.181),
        (SALU(1.0, 1.0), 1.704),
        (SWALU(0.5, 0.5), 1.812),
        (GALU(1.0, 1.0), 1.733),
    ],
    ids=["zc-swish", "salu", "swalu", "galu"],
)
def test_our_activations(activation: nn.Module, known: float) -> None:
    # The known values were sampled, as the published table was.
    assert gain(activation) == pytest.approx(known, rel=2e-3)
    assert gain(activation) == quadrature(activation)


def test_the_activation_is_left_as_it_was() -> None:
    activation = ZCSwish(1)
    gain(activation)
    assert activation.center.dtype == torch.float32


def test_a_constant_has_no_gain() -> None:
    with pytest.raises(ValueError, match="Threshold is constant and has no gain"):
        gain(nn.Threshold(20.0, 1.0))
