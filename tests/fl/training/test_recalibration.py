"""BatchNorm's statistics measured anew are the moments of all values that reach a layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.nn import BatchNorm
from fl.training.parameters import FlatNetwork
from fl.training.recalibration import recalibrate


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    space=st.lists(st.integers(1, 4), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    mean=st.sampled_from([0.0, -30.0, 3e4]),
    seed=st.integers(0, 99),
)
def test_statistics_are_the_moments_of_all_values(sizes, space, dtype, mean, seed):
    """However batches cut them, and however far from 0 they are: here up to 10⁴ deviations."""
    generator = torch.Generator().manual_seed(seed)
    norm = BatchNorm(3).to(dtype)
    network = FlatNetwork(norm, torch.device("cpu"))
    batches = [
        (torch.randn(n, 3, *space, generator=generator, dtype=dtype) * 3 + mean, torch.zeros(n))
        for n in sizes
    ]
    recalibrate(network, batches)
    values = torch.cat([inputs.double() for inputs, _ in batches]).transpose(0, 1).flatten(1)
    var, mean_of_all = torch.var_mean(values, dim=1, correction=0)
    rounding = 20 * torch.finfo(dtype).eps
    close = {"rtol": rounding, "atol": rounding * max(1.0, abs(mean))}
    torch.testing.assert_close(norm.running_mean.double(), mean_of_all, **close)
    torch.testing.assert_close(norm.running_var.double(), var, **close)
    assert norm.weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moments_of_short_numbers_are_not_short(dtype):
    """A mean of 256 values near 300 is not told in the 8 bits that they have."""
    generator = torch.Generator().manual_seed(3)
    norm = BatchNorm(2)
    network = FlatNetwork(norm, torch.device("cpu"))
    inputs = (torch.randn(64, 2, 2, 2, generator=generator) * 9 + 300).to(dtype)
    recalibrate(network, [(inputs, torch.zeros(64))])
    expected = inputs.double().mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean.double(), expected, rtol=1e-6, atol=0)
