import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.func import functional_call

from fl.nn.layers.activations import scalars
from fl.nn.layers.squashing import Affine, DynamicErf, DynamicTanh, derf, dyt

unhurried = settings(deadline=None)  # a busy machine is no failure
numbers = st.floats(-20, 20)
small = st.floats(-3, 3)


def single(layer: nn.Module, x: float, **values: float) -> float:
    """Return f(x) with given parameters, in float64."""
    tensors = {
        name: torch.full_like(p, values[name.rpartition(".")[2]], dtype=torch.float64)
        for name, p in layer.named_parameters()
    }
    return functional_call(layer, tensors, torch.full((1, 1), x, dtype=torch.float64)).item()


@unhurried
@given(x=numbers, alpha=small, weight=small, bias=small)
def test_dyt_is_its_formula(x: float, alpha: float, weight: float, bias: float) -> None:
    found = single(dyt(1), x, alpha=alpha, weight=weight, bias=bias)
    assert found == pytest.approx(weight * math.tanh(alpha * x) + bias, abs=1e-12)


@unhurried
@given(x=numbers, alpha=small, shift=small, weight=small, bias=small)
def test_derf_is_its_formula(
    x: float, alpha: float, shift: float, weight: float, bias: float
) -> None:
    found = single(derf(1), x, alpha=alpha, shift=shift, weight=weight, bias=bias)
    assert found == pytest.approx(weight * math.erf(alpha * x + shift) + bias, abs=1e-12)


@pytest.mark.parametrize("space", [(), (7,), (2, 3), (2, 3, 2)])
def test_initially_they_squash_half_the_input(space: tuple[int, ...]) -> None:
    x = 3 * torch.randn(2, 4, *space, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(dyt(4)(x), torch.tanh(x / 2))
    torch.testing.assert_close(derf(4)(x), torch.erf(x / 2))


def test_only_what_is_inside_the_function_is_a_scalar_of_an_activation() -> None:
    assert scalars(dyt(3)) == {"squash.alpha"}
    assert scalars(derf(3)) == {"squash.alpha", "squash.shift"}
    shapes = {name: tuple(p.shape) for name, p in derf(3).named_parameters()}
    assert shapes == {
        "squash.alpha": (),
        "squash.shift": (),
        "affine.weight": (3,),
        "affine.bias": (3,),
    }
    assert all(p.shape == (3,) for p in derf(3, per_channel=True).parameters())


def test_a_channel_has_its_own_scale_and_shift() -> None:
    layer = Affine(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0]))
    assert layer(torch.ones(1, 2, 1, 1)).flatten().tolist() == [2, 4]


@pytest.mark.parametrize("layer", [DynamicTanh(), DynamicErf()], ids=["tanh", "erf"])
def test_huge_inputs_saturate(layer: nn.Module) -> None:
    x = torch.tensor([[-1e30], [1e30]]).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.flatten().tolist() == [-1, 1]
    assert all(torch.isfinite(t.grad).all() for t in (x, *layer.parameters()))
