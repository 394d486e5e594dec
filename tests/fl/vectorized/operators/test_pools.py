"""Max pools in C++ are PyTorch's, to the bit."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.vectorized.operators import pools
from tests.fl.vectorized.operators.values import odd_values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=1), st.integers(1, 70), st.integers(1, 5),
       st.integers(0, 2**32))  # fmt: skip
def test_pools_are_pytorch_s_with_equals_and_what_is_not_a_number(leading, wide, high, seed):
    x = odd_values(*leading, 2, 2 * high, 2 * wide, seed=seed)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    y, expected = pools.max_pool(ours), F.max_pool2d(theirs, 2)
    assert torch.equal(y.nan_to_num(9), expected.nan_to_num(9))
    weights = torch.arange(1.0, 1 + y.numel()).view(y.shape)
    found, wanted = (
        torch.autograd.grad(r, t, weights)[0] for r, t in ((y, ours), (expected, theirs))
    )
    assert torch.equal(found, wanted)


def test_pools_of_lanes_are_those_of_each():
    x = torch.randn(3, 2, 4, 8, 6)
    found = torch.vmap(pools.max_pool, in_dims=2)(x)
    assert torch.equal(found, torch.stack([F.max_pool2d(x[:, :, n], 2) for n in range(4)]))


MAP = torch.zeros(2, 4, 6, 6)


@pytest.mark.parametrize(
    ("x", "named", "fits"),
    [
        (MAP, {"kernel_size": 2, "stride": 2, "ceil_mode": True}, True),
        (MAP, {"kernel_size": (2, 2), "padding": (0, 0)}, True),
        (MAP, {"kernel_size": 3, "stride": 2}, False),
        (MAP, {"kernel_size": 2, "stride": 1}, False),
        (MAP, {"kernel_size": 2, "padding": 1}, False),
        (MAP, {"kernel_size": 2, "return_indices": True}, False),
        (MAP[..., :5], {"kernel_size": 2}, False),
        (MAP.double(), {"kernel_size": 2}, False),
        (MAP.to("meta"), {"kernel_size": 2}, False),
    ],
)
def test_which_pools_it_takes_it_says(x, named, fits):
    assert pools.supports(x, **named) is fits
