import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.autograd import gradcheck

from fl.nn.layers.merges import (
    Add,
    MagnitudePreserving,
    Merge,
    magnitude_preserving_product,
    product,
)

SHAPE = (2, 3, 4)
MERGES = [Add(), MagnitudePreserving()]
unhurried = settings(deadline=None)
seeds = st.integers(0, 2**31)
gates = st.floats(0, 1)


def uncorrelated(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two tensors of second moment 1 and correlation 0, exactly and not on average."""
    size = math.prod(SHAPE)
    noise = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    skip, branch = torch.linalg.qr(noise).Q.T * size**0.5
    return skip.view(SHAPE), branch.view(SHAPE)


def weighing(weight: float) -> MagnitudePreserving:
    merge = MagnitudePreserving()
    merge.WEIGHT = weight
    return merge


@unhurried
@given(seed=seeds, weight=gates)
def test_preserves_the_second_moment_of_uncorrelated_signals(seed: int, weight: float) -> None:
    merged = weighing(weight)(*uncorrelated(seed))
    assert merged.square().mean().item() == pytest.approx(1, abs=1e-12)


@unhurried
@given(seed=seeds, rho=st.floats(-1, 1))
def test_second_moment_of_correlated_signals(seed: int, rho: float) -> None:
    # Of skip and branch = ρ·skip + √(1 - ρ²)·other: 1 + ρ at weight 1/2, and twice that of the sum.
    skip, other = uncorrelated(seed)
    branch = rho * skip + (1 - rho**2) ** 0.5 * other
    found = [merge(skip, branch).square().mean().item() for merge in MERGES]
    assert found == pytest.approx([2 * (1 + rho), 1 + rho], abs=1e-12)


@pytest.mark.parametrize("merge", MERGES, ids=lambda merge: type(merge).__name__)
def test_gradients_of_merges_are_those_of_finite_differences(merge: Merge) -> None:
    skip, branch = uncorrelated(1)
    assert gradcheck(merge, (skip.requires_grad_(), branch.requires_grad_()))


def test_half_and_half_is_the_sum_by_the_root_of_two() -> None:
    skip, branch = uncorrelated(1)
    torch.testing.assert_close(MagnitudePreserving()(skip, branch), Add()(skip, branch) / 2**0.5)
    assert torch.equal(weighing(0)(skip, branch), skip)
    assert torch.equal(weighing(1)(skip, branch), branch)


@unhurried
@given(seed=seeds, s=gates)
def test_products_are_their_formulas(seed: int, s: float) -> None:
    x, _ = uncorrelated(seed)
    gate = torch.full((*SHAPE[:2], 1), s, dtype=torch.float64)
    torch.testing.assert_close(product(x, gate), s * x)
    expected = s * x / math.sqrt((1 - s) ** 2 + s**2)
    torch.testing.assert_close(magnitude_preserving_product(x, gate), expected)
    torch.testing.assert_close(expected, weighing(s)(torch.zeros_like(x), x))


@pytest.mark.parametrize(("s", "factor"), [(0.0, 0.0), (0.5, 0.5**0.5), (0.8, 0.970143), (1.0, 1)])
def test_factors_of_magnitude_preserving_gates_by_pencil(s: float, factor: float) -> None:
    # 0.8/√(0.04 + 0.64) = 0.970143.
    gate = torch.full((1, 1, 1), s, dtype=torch.float64)
    found = magnitude_preserving_product(torch.full((1, 1, 5), -2.0, dtype=torch.float64), gate)
    assert found.flatten().tolist() == pytest.approx([-2 * factor] * 5, abs=1e-6)


@pytest.mark.parametrize("excite", [product, magnitude_preserving_product])
def test_gradients_of_products_are_those_of_finite_differences(excite) -> None:
    x, _ = uncorrelated(1)
    gate = torch.linspace(0, 1, 6, dtype=torch.float64).view(2, 3, 1)
    assert gradcheck(excite, (x.requires_grad_(), gate.requires_grad_()))


def test_a_gate_is_one_number_a_channel_of_an_image() -> None:
    x, other = uncorrelated(1)
    gate = other[..., :1].sigmoid()
    for excite in (product, magnitude_preserving_product):
        whole = excite(x, gate)
        for n, c in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
            one = slice(n, n + 1), slice(c, c + 1)
            assert torch.equal(whole[one], excite(x[one], gate[one]))
