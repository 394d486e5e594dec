"""Convolutions in C++ are PyTorch's, in all the ways that they are laid out."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.vectorized.operators import convolutions
from tests.fl.vectorized.operators.values import error

CONVOLVE = {1: F.conv1d, 2: F.conv2d}


@st.composite
def cases(draw):
    """Images, weights, stride and padding, with sizes odd and even, down to maps of one pixel."""
    kernel = draw(st.lists(st.sampled_from([1, 3, 3, 5, 7]), min_size=1, max_size=2))
    padding = draw(st.integers(0, min(kernel) - 1))
    sides = [draw(st.integers(max(1, side - 2 * padding), 19)) for side in kernel]
    lanes, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    batch = draw(st.integers(1, 5) | st.sampled_from([16, 19]))  # vectors of images, and a rest
    outputs = draw(st.integers(1, 14) | st.sampled_from([17, 33, 40]))  # of more vectors than one
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(lanes, batch, inputs, *sides, generator=noise)
    w = torch.randn(lanes, outputs, inputs, *kernel, generator=noise)
    return x, w, draw(st.sampled_from([1, 2])), padding


@st.composite
def narrow_cases(draw):
    """Small maps, which are laid out as matrices, with images for more than one, or by images."""
    kernel, stride = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
    padding = draw(st.integers(0, kernel - 1))
    sides = [draw(st.integers(max(1, kernel - 2 * padding), 9)) for _ in range(2)]
    lanes, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 14) | st.sampled_from([33]))
    batch = draw(st.integers(1, 40) | st.sampled_from([16, 32]))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(lanes, batch, 16, *sides, generator=noise)
    w = torch.randn(lanes, outputs, 16, kernel, kernel, generator=noise)
    return x, w, stride, padding


@st.composite
def tiled_cases(draw):
    """Filters of 3×3 over maps of tiles, which are cut into parts where channels are many."""
    padding = draw(st.integers(0, 2))
    sides = [draw(st.integers(3 - min(2, 2 * padding), 40)) for _ in range(2)]
    lanes, batch = draw(st.integers(1, 2)), draw(st.integers(1, 9))
    inputs, outputs = (draw(st.integers(8, 17) | st.sampled_from([33, 48])) for _ in range(2))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(lanes, batch, inputs, *sides, generator=noise)
    w = torch.randn(lanes, outputs, inputs, 3, 3, generator=noise)
    return x, w, 1, padding


def convolve(x, w, stride, padding):
    return CONVOLVE[w.dim() - 2](x, w, None, stride, padding)


def gradients(result, x, w):
    """Return the gradients of a sum with unlike weights."""
    weights = torch.arange(result.numel(), dtype=result.dtype).view(result.shape).cos()
    return torch.autograd.grad((result * weights).sum(), (x, w))


@settings(max_examples=200, deadline=None)
@given(st.deferred(lambda: cases() | narrow_cases() | tiled_cases()))
def test_results_and_gradients_are_pytorch_s_in_float64(case):
    x, w, stride, padding = case
    own, exact = [[t.to(dtype).requires_grad_() for t in (x, w)] for dtype in (None, torch.float64)]
    lanes = torch.vmap(lambda x, w: convolutions.conv(x, w, None, stride, padding))
    y = lanes(*own)
    expected = torch.stack([convolve(*lane, stride, padding) for lane in zip(*exact, strict=True)])
    assert error(y, expected) <= 1e-5
    for found, wanted in zip(gradients(y, *own), gradients(expected, *exact), strict=True):
        assert error(found, wanted) <= 1e-5


@pytest.mark.parametrize(("channels", "side"), [(16, 16), (32, 8), (64, 8)])
def test_tiles_are_at_most_twice_as_far_from_float64_as_pytorch_is(channels, side):
    noise = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(4, channels, side, side, generator=noise) for _ in range(2))
    x, w = x.relu(), torch.randn(channels, channels, 3, 3, generator=noise)

    def results(convolve, *tensors):
        x, w, grad = (t.requires_grad_() for t in tensors)
        y = convolve(x, w, None, 1, 1)
        return y.detach(), *torch.autograd.grad(y, (x, w), grad)

    def distance(found, exact) -> float:
        return float((found - exact).square().mean().sqrt())

    exact = results(F.conv2d, *(t.double() for t in (x, w, grad)))
    theirs = results(F.conv2d, *(t.clone() for t in (x, w, grad)))
    ours = results(convolutions.conv, *(t.clone() for t in (x, w, grad)))
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert 0 < distance(mine, right) <= 2 * distance(other, right)


@settings(max_examples=30, deadline=None)
@given(cases() | narrow_cases() | tiled_cases())
def test_a_lane_is_the_same_bytes_alone_and_among_others(case):
    x, w, stride, padding = case
    lane_conv, backward = torch.ops.fednf.lane_conv, torch.ops.fednf.lane_conv_backward
    x, w = x[:1], w[:1]
    alone = lane_conv(x, w, stride, padding)
    crowd = [torch.cat([torch.full_like(t, torch.inf), t, t.neg(), t]) for t in (x, w)]
    among = lane_conv(*crowd, stride, padding)
    grads = backward(alone, x, w, stride, padding, True)
    crowded = backward(among, *crowd, stride, padding, True)
    for one, many in zip((alone, *grads), (among, *crowded), strict=True):
        assert torch.equal(many[[1, 3]], one.expand(2, *one.shape[1:]))


@pytest.mark.parametrize(("channels", "side"), [(4, 5), (4, 4), (8, 6)])
def test_lanes_may_lie_apart(channels, side):
    def lanes(*sizes):
        rows = torch.randn(3, 7 + math.prod(sizes) + 12)
        return rows[:, 7:-12].view(3, *sizes)

    w, x = lanes(channels + 1, channels, 3, 3), lanes(2, channels, side, side)
    apart = torch.ops.fednf.lane_conv(x, w, 1, 1)
    assert torch.equal(apart, torch.ops.fednf.lane_conv(x.contiguous(), w.contiguous(), 1, 1))
    grad = lanes(2, channels + 1, side, side)
    found = torch.ops.fednf.lane_conv_backward(grad, x, w, 1, 1, True)
    together = [t.contiguous() for t in (grad, x, w)]
    for one, other in zip(
        found, torch.ops.fednf.lane_conv_backward(*together, 1, 1, True), strict=True
    ):
        assert torch.equal(one, other)


@settings(max_examples=60, deadline=None)
@given(st.deferred(lambda: cases() | narrow_cases() | tiled_cases()), st.booleans())
def test_a_convolution_by_standardized_weights_is_the_two(case, needs_x):
    x, w, stride, padding = case
    gain = torch.linspace(-1, 2, w.shape[0] * w.shape[1]).view(w.shape[:2])
    y = torch.ops.fednf.standardized_conv(x, w, gain, 1e-5, stride, padding)
    ready = torch.ops.fednf.standardize(w.flatten(2), gain, 1e-5).view_as(w)
    assert error(y, torch.ops.fednf.lane_conv(x, ready, stride, padding)) <= 1e-6
    grad = torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()
    found = torch.ops.fednf.standardized_conv_backward(
        grad, x, w, gain, 1e-5, stride, padding, needs_x
    )
    of_x, of_ready = torch.ops.fednf.lane_conv_backward(grad, x, ready, stride, padding, needs_x)
    of_w = torch.ops.fednf.standardize_backward(of_ready.flatten(2), w.flatten(2), gain, 1e-5)
    for one, other in zip(found[not needs_x :], (of_x, *of_w)[not needs_x :], strict=True):
        assert error(one.flatten(), other.flatten()) <= 1e-4


@pytest.mark.parametrize(("of_x", "of_w"), [(0, None), (None, 0), (1, 2), (3, 0)])
def test_what_has_no_lanes_is_the_same_in_all(of_x, of_w):
    x, w = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3)
    lanes = [t if dim is None else torch.stack([t, t.cos()], dim)
             for t, dim in ((x, of_x), (w, of_w))]  # fmt: skip
    found = torch.vmap(lambda x, w: convolutions.conv(x, w, None, 2, 1), (of_x, of_w))(*lanes)
    for n, y in enumerate(found):
        one = [t if dim is None else t.select(dim, n)
               for t, dim in zip(lanes, (of_x, of_w), strict=True)]  # fmt: skip
        assert error(y, F.conv2d(*one, None, 2, 1)) <= 1e-5


def test_the_input_of_a_network_has_no_gradient():
    x, w = torch.randn(2, 3, 8), torch.randn(4, 3, 3, requires_grad=True)
    (found,) = torch.autograd.grad(convolutions.conv(x, w, torch.ones(4), 1, 1).sum(), w)
    (expected,) = torch.autograd.grad(F.conv1d(x, w, torch.ones(4), 1, 1).sum(), w)
    assert error(found, expected) <= 1e-5


X, W = torch.zeros(2, 4, 9, 9), torch.zeros(6, 4, 3, 3)


def test_what_it_takes_it_says():
    assert convolutions.supports(X, W)
    assert convolutions.supports(X, W, stride=(2, 2), padding=[1, 1], dilation=(1, 1))
    assert convolutions.supports(X[..., 0], W[..., 0], torch.zeros(6), 1, 2)


@pytest.mark.parametrize(
    ("x", "w", "named"),
    [
        (X.double(), W.double(), {}),
        (X, W.to("meta"), {}),
        (X[0], W, {}),
        (X[..., None], W[..., None], {}),
        (X, W[..., :2], {}),
        (X, torch.zeros(6, 4, 9, 9), {}),
        (X[..., :2], W, {}),
        (X, W[:, :2], {"groups": 2}),
        (X, W, {"dilation": 2}),
        (X, W, {"stride": 3}),
        (X, W, {"stride": (1, 2)}),
        (X, W, {"padding": 3}),
        (X, W, {"padding": "same"}),
        (X, W, {"padding": (0, 1)}),
    ],
)
def test_what_it_does_not_take_it_says(x, w, named):
    assert not convolutions.supports(x, w, **named)


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "message"),
    [
        (X[None], W[None].double(), 1, 0, "float32 only"),
        (X[None], W[None, :, :2], 1, 0, "got"),
        (X[None], W[None], 3, 0, "stride is 1 or 2"),
        (X[None], W[None], 1, 3, "padding 3"),
        (X[None, ..., :2], W[None], 1, 0, "kernel 3 over 2"),
        (X[None, :0], W[None], 1, 0, "none of them 0"),
    ],
)
def test_bad_input_to_the_operator_is_refused(x, w, stride, padding, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.fednf.lane_conv(x, w, stride, padding)


@pytest.mark.parametrize("gain", [torch.ones(1, 5), torch.ones(6), torch.ones(1, 6).double()])
def test_a_gain_that_is_not_the_filters_is_refused(gain):
    with pytest.raises(RuntimeError, match=r"the gain is \(K, O\), of float32; got"):
        torch.ops.fednf.standardized_conv(X[None], W[None], gain, 1e-5, 1, 1)
    with pytest.raises(RuntimeError, match=r"the gain \(K, R\), of float32, none empty; got"):
        torch.ops.fednf.standardize(W[None].flatten(2), gain, 1e-5)


def images(count, channels, side):
    return torch.empty(count, channels, side, side)


@pytest.mark.parametrize(
    ("x", "outputs", "kernel", "others", "faster"),
    [
        (images(250, 16, 16), 16, 3, (None, 1, 1), True),
        (images(250, 16, 16), 16, 3, (None, 2, 1), False),
        (images(32, 16, 16), 16, 3, (None, 2, 1), True),
        (images(250, 16, 16), 16, 1, (), False),
        (images(250, 7, 16), 16, 3, (None, 1, 1), False),
        (images(32, 7, 16), 16, 3, (None, 1, 1), True),
        (images(1, 256, 8), 256, 3, (None, 1, 1), True),
        (images(1, 257, 8), 256, 3, (None, 1, 1), False),
        (images(3, 200, 4), 200, 3, (None, 1, 1), False),  # too few tiles
        (images(4, 200, 4), 200, 3, (None, 1, 1), True),
        (images(250, 200, 3), 200, 3, (None, 1, 1), False),  # too small maps
        (images(250, 200, 6), 200, 3, (), True),
        (images(250, 16, 16)[..., 0], 16, 3, (None, 1, 1), False),
        (images(0, 16, 16), 16, 3, (None, 1, 1), False),
    ],
)
def test_it_is_taken_where_it_is_faster(x, outputs, kernel, others, faster):
    w = torch.empty(outputs, x.shape[1], *[kernel] * (x.dim() - 2))
    assert convolutions.faster(x, w, *others) == faster
