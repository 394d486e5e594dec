"""Activations in C++ are those of `fl.nn`, and so are the gradients of their scalars."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fl.nn.layers.activations import GALU, SALU, SWALU, ZCSwish, salu, swalu, zc_swish
from fl.vectorized import operators
from fl.vectorized.operators import activations

SCALARS = {zc_swish: 3, salu: 2, swalu: 2}
FUNCTIONS = pytest.mark.parametrize("function", SCALARS)


@st.composite
def inputs(draw):
    """Numbers near and far from 0, more and fewer than a vector has, and what scalars are of."""
    lanes, batch, channels = (draw(st.integers(1, 3)) for _ in range(3))
    sides = draw(st.lists(st.sampled_from([1, 3, 16, 19, 70]), min_size=0, max_size=2))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(lanes, batch, channels, *sides, generator=noise)
    x *= torch.randn(x.shape, generator=noise).exp() * draw(st.sampled_from([1.0, 30.0]))
    own = torch.randn(3, lanes, *draw(st.sampled_from([(), (channels,)])), generator=noise)
    return x, 0.7 * own, torch.randn(x.shape, generator=noise)


def results(take, tensors, grad):
    """Return what lanes come to, and the gradients."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = torch.vmap(take)(*leaves)
    return y, *torch.autograd.grad(y, leaves, grad)


@FUNCTIONS
@settings(max_examples=100, deadline=None)
@given(inputs())
def test_activations_are_ours_in_float64(function, case):
    x, own, grad = case
    tensors = x, *own[: SCALARS[function]]
    found = results(lambda *t: activations.activate(function, *t), tensors, grad)
    exact = results(function, [t.double() for t in tensors], grad.double())
    # What a scalar's gradient is a sum of may be far larger than the sum.
    summed = grad.abs().sum() + (grad.double() * exact[0]).abs().sum()
    bounds = [t.abs().max() for t in exact[:2]] + [summed] * SCALARS[function]
    for mine, theirs, bound in zip(found, exact, bounds, strict=True):
        # Near 0 the formula takes a number from one that is nearly equal.
        assert (mine - theirs).abs().max() <= max(1e-5 * bound, 1e-6)


@FUNCTIONS
def test_what_is_large_or_no_number_is_what_it_is_in_pytorch(function):
    tiny = torch.finfo(torch.float32).tiny
    x = torch.tensor([torch.nan, 1e30, -1e30, 3e38, -3e38, 88.5, -88.5, -104, tiny, 0, -0.0])
    scalars = torch.zeros(SCALARS[function])
    scalars[-1] = 1
    expected = function(x[None], *scalars)
    found = activations.activate(function, x[None], *scalars)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-6, atol=1e-36)


@FUNCTIONS
def test_a_lane_s_activations_are_the_same_bytes_alone_and_among_others(function):
    operator = getattr(torch.ops.fednf, function.__name__)
    backward = getattr(torch.ops.fednf, f"{function.__name__}_backward")
    alone = [torch.randn(1, 2, 3, 37), *torch.randn(SCALARS[function], 1, 3)]
    crowd = [torch.cat([torch.full_like(t, torch.nan), t, t.neg(), t]) for t in alone]
    grad = torch.randn(1, 2, 3, 37)
    one = operator(*alone), *backward(grad, *alone)
    many = operator(*crowd), *backward(grad.expand(4, 2, 3, 37), *crowd)
    for single, among in zip(one, many, strict=True):
        assert torch.equal(among[[1, 3]], single.expand(2, *single.shape[1:]))


@FUNCTIONS
def test_gradients_of_many_numbers_are_summed_as_exactly_as_pytorch_sums(function):
    x, ones = torch.rand(1, 1, 2, 500_000) + 1, torch.ones(1, 1, 2, 500_000)
    tensors = x, *torch.zeros(SCALARS[function], 1)
    exact = results(function, [t.double() for t in tensors], ones.double())
    found = results(lambda *t: activations.activate(function, *t), tensors, ones)
    for mine, theirs in zip(found[2:], exact[2:], strict=True):
        assert abs(mine - theirs) <= 1e-6 * abs(theirs)


X, ONE = torch.zeros(2, 4, 3), torch.tensor(1.0)


@pytest.mark.parametrize(
    "arguments",
    [(X.double(), ONE, ONE), (X, ONE, ONE.double()), (X.to("meta"), ONE, ONE), (X[:0], ONE, ONE),
     (X[0, 0], ONE, ONE)],
)  # fmt: skip
def test_which_inputs_it_does_not_take_it_says(arguments):
    assert activations.supports(X, ONE, ONE)
    assert not activations.supports(*arguments)


@pytest.mark.parametrize(
    ("layer", "operator"),
    [(ZCSwish(4), "zc_swish"), (ZCSwish(4, per_channel=True), "zc_swish"), (SALU(1.0, 1.0), "salu"),
     (SWALU(0.5, 0.5), "swalu"), (GALU(1.0, 1.0), "salu")],
)  # fmt: skip
def test_within_the_mode_an_activation_is_one_operator(layer, operator):
    x = torch.randn(2, 4, 3)
    with operators.Operators():
        graph = make_fx(layer)(x)
    assert f"fednf.{operator}.default" in graph.code
    assert not {"hypot", "silu", "sigmoid"} & set(graph.code.replace("(", ".").split("."))
    torch.testing.assert_close(graph(x), layer(x), rtol=1e-5, atol=1e-6)


def test_arguments_by_name_are_pytorch_s():
    with operators.Operators():
        found = salu(X, log_a=ONE, log_b=ONE)
    assert torch.equal(found, salu(X, ONE, ONE))


@FUNCTIONS
@pytest.mark.parametrize("wrong", [ONE, torch.ones(1, 2), torch.ones(1, 1).double()])
def test_bad_scalars_are_refused(function, wrong):
    operator = getattr(torch.ops.fednf, function.__name__)
    right = torch.ones(1, 1)
    with pytest.raises(RuntimeError, match=r"scalars are \(K, 1\) or \(K, C\), of float32; got"):
        operator(X[None], *[right] * (SCALARS[function] - 1), wrong)
    with pytest.raises(RuntimeError, match=r"x is \(K, B, C, ...\), of float32, not empty; got"):
        operator(X[None, :0], *[right] * SCALARS[function])
