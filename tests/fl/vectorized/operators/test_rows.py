"""Standardized rows in C++ are PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.vectorized.operators import rows
from tests.fl.vectorized.operators.values import error


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(5, 150), st.booleans(),
       st.integers(0, 2**32))  # fmt: skip
def test_standardized_rows_are_pytorch_s_in_float64(lanes, count, size, gains, seed):
    noise = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(lanes, 1, count, size, generator=noise) + 2
    gain = torch.randn(lanes, count, generator=noise) if gains else None
    grad = torch.randn(x.shape, generator=noise)

    def results(take, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in (x, gain) if t is not None]
        y = torch.vmap(lambda x, gain=None: take(x, None, None, gain, None, True, 0.0))(*leaves)
        return y, *torch.autograd.grad(y, leaves, grad.to(dtype))

    wanted = results(F.batch_norm, torch.float64)
    ours = results(lambda *a: rows.standardize(*rows.arguments(*a)), torch.float32)
    for found, exact in zip(ours, wanted, strict=True):
        assert error(found, exact) <= 1e-4


ROWS = torch.zeros(1, 3, 8)


@pytest.mark.parametrize(
    ("x", "named"),
    [
        (ROWS, {}),
        (ROWS.expand(2, 3, 8), {"training": True}),
        (ROWS.double(), {"training": True}),
        (ROWS.unsqueeze(-1), {"training": True}),
        (ROWS, {"training": True, "bias": torch.zeros(3)}),
        (ROWS, {"training": True, "running_mean": torch.zeros(3), "running_var": torch.ones(3)}),
    ],
)
def test_which_rows_it_does_not_take_it_says(x, named):
    assert rows.arguments(ROWS, training=True)
    assert rows.arguments(x, **named) is None
