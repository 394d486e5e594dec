import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from fl.nn import seed_noise
from fl.nn.layers.noise import Dropout, Noise, StochasticDepth

KINDS = [Dropout, StochasticDepth]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_rate = pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
unhurried = settings(deadline=None)

MANY = 40_000


def seeded(layer: nn.Module, seed: int = 1) -> nn.Module:
    seed_noise(layer, torch.Generator().manual_seed(seed))
    return layer


@every_kind
@every_rate
def test_share_of_zeros_and_mean(kind: type[Noise], rate: float) -> None:
    y = seeded(kind(rate))(torch.ones(MANY, 1, 1))
    error = 5 * math.sqrt(rate * (1 - rate) / MANY)  # five standard errors of a share
    assert (y == 0).double().mean().item() == pytest.approx(rate, abs=error)
    assert y.double().mean().item() == pytest.approx(1, abs=error / (1 - rate))


@every_kind
@given(rate=st.floats(0, 0.99), seed=st.integers(0, 999))
@unhurried
def test_values_are_dropped_or_scaled(kind: type[Noise], rate: float, seed: int) -> None:
    # A survivor has 1/(1 - rate) and comes with probability 1 - rate: the mean is that of x.
    x = torch.arange(1.0, 25).view(2, 3, 4).double()
    y = seeded(kind(rate), seed)(x)
    torch.testing.assert_close(y[y != 0], x[y != 0] / (1 - rate))


def test_without_rescaling_survivors_stay_as_they_are() -> None:
    x = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(3))
    y = seeded(StochasticDepth(0.5, rescale=False))(x)
    kept = y.flatten(1).any(1)
    assert 0 < kept.sum() < 50
    assert torch.equal(y[kept], x[kept])


def test_stochastic_depth_drops_whole_examples_and_dropout_does_not() -> None:
    x = torch.ones(100, 4, 3, 3)
    by_example = seeded(StochasticDepth(0.5))(x).flatten(1)
    assert {tuple(set(row.tolist())) for row in by_example} == {(0.0,), (2.0,)}
    by_example = seeded(Dropout(0.5))(x).flatten(1)
    # All 36 values of an example agree with probability 2⁻³⁵.
    assert all(set(row.tolist()) == {0.0, 2.0} for row in by_example)


@every_kind
def test_is_the_identity_in_evaluation_and_at_rate_0(kind: type[Noise]) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    assert kind(0.0)(x) is x
    assert kind(0.5).eval()(x) is x
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    for layer in (kind(0.0), kind(0.5).eval()):
        seed_noise(layer, generator)
        assert layer(x) is x
    assert torch.equal(generator.get_state(), before), "nothing was drawn"


@every_kind
def test_refuses_to_train_without_a_generator(kind: type[Noise]) -> None:
    with pytest.raises(RuntimeError, match=r"^call fl\.nn\.seed_noise before training"):
        kind(0.5)(torch.ones(2, 3))


@every_kind
def test_only_the_given_generator_matters(kind: type[Noise]) -> None:
    x = torch.ones(64, 2)
    before = torch.get_rng_state()
    first, second, other = (seeded(kind(0.5), seed)(x) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_layers_draw_from_one_stream_in_turn() -> None:
    x = torch.ones(64, 8)
    layers = [Dropout(0.5), Dropout(0.5)]
    seeded(nn.Sequential(layers[0], nn.Linear(8, 8), nn.Sequential(layers[1])))
    alone = seeded(Dropout(0.5))
    found, expected = [layer(x) for layer in layers], [alone(x), alone(x)]
    assert not torch.equal(*found)
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@every_kind
def test_gradients_pass_where_values_do(kind: type[Noise]) -> None:
    x = torch.ones(16, 4, requires_grad=True)
    y = seeded(kind(0.5))(x)
    y.sum().backward()
    assert torch.equal(x.grad, y)


@every_kind
def test_has_no_state(kind: type[Noise]) -> None:
    assert seeded(kind(0.5)).state_dict() == {}
