"""Group normalization in C++ is PyTorch's, with a scale and a shift for every lane."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fl.nn.layers.normalizers.groups import InstanceNorm
from fl.vectorized import operators
from fl.vectorized.operators import norms
from tests.fl.vectorized.operators.values import error


@st.composite
def cases(draw):
    """Images with scale, shift and a gradient, and groups, with and without space."""
    lanes, batch, groups = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)))
    channels = groups * draw(st.integers(1, 5))
    sides = draw(st.lists(st.integers(1, 9) | st.sampled_from([16, 33]), min_size=0, max_size=2))
    size = torch.Size([channels // groups, *sides]).numel()
    if size == 1:
        sides = [2]
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = 3 * torch.randn(lanes, batch, channels, *sides, generator=noise) + 2
    scale, shift = torch.randn(2, lanes, channels, generator=noise)
    return x, scale, shift, torch.randn(x.shape, generator=noise), groups


def results(take, case, dtype):
    """Return what lanes come to, and the gradients."""
    *tensors, grad, groups = case
    leaves = [t.to(dtype, copy=True).requires_grad_() for t in tensors]
    y = torch.vmap(lambda x, scale, shift: take(x, groups, scale, shift))(*leaves)
    return y, *torch.autograd.grad(y, leaves, grad.to(dtype))


def conditions(case):
    """Return how far rounding of the inputs moves the result and the three gradients, at most.

    With u half a unit of float32's last place and r = 1/√(var + ε), rounding an input moves a
    normalized value by u·|x|·r. Where a group's values are nearly equal, r is large.
    """
    x, scale, _, grad, groups = case
    values = x.double().reshape(len(x) * x.shape[1] * groups, -1)
    r = (values.var(1, correction=0) + 1e-5).rsqrt().max()
    moved = 2**-24 * x.abs().max() * r
    added = x[0].numel() // x.shape[2]  # examples and space, over which the last two gradients sum
    largest, gain = grad.abs().max(), scale.abs().max()
    return moved * gain, moved * gain * largest * r, moved * largest * added, 0.0


@settings(max_examples=150, deadline=None)
@given(cases())
def test_group_norms_are_pytorch_s_in_float64(case):
    wanted = results(F.group_norm, case, torch.float64)
    ours = results(norms.group_norm, case, torch.float32)
    for found, exact, condition in zip(ours, wanted, conditions(case), strict=True):
        bound = 1e-5 * max(exact.abs().max(), 1) + 2 * condition
        assert (found - exact).abs().max() <= bound


@settings(max_examples=30, deadline=None)
@given(cases())
def test_a_lane_s_norms_are_the_same_bytes_alone_and_among_others(case):
    *tensors, grad, groups = case
    alone = [t[:1] for t in tensors]
    crowd = [torch.cat([torch.full_like(t, torch.nan), t, t.neg(), t]) for t in alone]
    grads = [grad[:1], grad[:1].expand(4, *grad.shape[1:])]
    forward, backward = torch.ops.fednf.group_norm, torch.ops.fednf.group_norm_backward
    one, many = (
        (forward(*lanes, groups, 1e-5, False), *backward(grad, *lanes, groups, 1e-5, False))
        for grad, lanes in zip(grads, (alone, crowd), strict=True)
    )
    for single, among in zip(one, many, strict=True):
        assert torch.equal(among[[1, 3]], single.expand(2, *single.shape[1:]))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_with_a_relu_behind_it_the_norm_gives_what_both_give(case):
    """The same bytes, and a NaN stays one."""
    *lanes, grad, groups = case
    lanes[0][0, 0, 0] = torch.nan
    forward, backward = torch.ops.fednf.group_norm, torch.ops.fednf.group_norm_backward
    y = torch.relu(forward(*lanes, groups, 1e-5, False))
    behind = torch.ops.aten.threshold_backward(grad, y, 0)
    both = y, *backward(behind, *lanes, groups, 1e-5, False)
    found = forward(*lanes, groups, 1e-5, True), *backward(grad, *lanes, groups, 1e-5, True)
    for one, other in zip(found, both, strict=True):
        assert torch.equal(one.nan_to_num(9), other.nan_to_num(9))


@pytest.mark.parametrize(
    ("outputs", "level", "left"),
    [("relu", 0, []), ("both", 0, ["relu", "threshold_backward"]), ("relu", 1, ["threshold"])],
)
def test_a_relu_is_left_where_the_norm_has_other_readers_or_the_gradient_another_level(
    outputs, level, left
):
    def passes(x, scale, shift, grad):
        y = torch.ops.fednf.group_norm(x, scale, shift, 2, 1e-5, False)
        rectified = torch.relu(y)
        behind = torch.ops.aten.threshold_backward(grad, rectified, level)
        found = torch.ops.fednf.group_norm_backward(behind, x, scale, shift, 2, 1e-5, False)
        return (rectified, y, *found) if outputs == "both" else (rectified, *found)

    x, grad = torch.randn(2, 3, 2, 4, 3, 3)
    arguments = x, torch.randn(3, 4), torch.randn(3, 4), grad
    graph = make_fx(passes)(*arguments)
    expected = graph(*arguments)
    norms.rectify(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert all(f"aten.{name}" in graph.code for name in left)
    assert ("aten" in graph.code) == bool(left)
    for one, other in zip(graph(*arguments), expected, strict=True):
        assert torch.equal(one, other)


MAP, PER_CHANNEL = torch.zeros(2, 4, 3, 3), torch.ones(4)


@pytest.mark.parametrize(
    "arguments",
    [
        (MAP, 2),
        (MAP, 2, PER_CHANNEL),
        (MAP.double(), 2, PER_CHANNEL.double(), PER_CHANNEL.double()),
        (MAP.to("meta"), 2, PER_CHANNEL, PER_CHANNEL),
        (MAP[:0], 2, PER_CHANNEL, PER_CHANNEL),
        (MAP[:1, :, 0, 0], 4, PER_CHANNEL, PER_CHANNEL),
        (MAP, 3, PER_CHANNEL, PER_CHANNEL),
    ],
)
def test_which_norms_it_does_not_take_it_says(arguments):
    assert norms.supports(MAP, 2, PER_CHANNEL, PER_CHANNEL)
    assert norms.supports(MAP, 2, PER_CHANNEL, PER_CHANNEL, 1e-5, False)  # as torch.group_norm
    assert not norms.supports(*arguments)


@pytest.mark.parametrize("layer", [torch.nn.GroupNorm(2, 4), InstanceNorm(4)])
def test_within_the_mode_a_norm_is_one_operator(layer):
    x = torch.randn(2, 4, 3, 3)
    with operators.Operators():
        graph = make_fx(layer)(x)
    assert "fednf.group_norm.default" in graph.code
    assert "aten.native_group_norm" not in graph.code
    assert error(graph(x), layer(x)) <= 1e-5


@pytest.mark.parametrize(
    ("x", "scale", "groups"),
    [
        (MAP[None], PER_CHANNEL, 2),
        (MAP[None], PER_CHANNEL[None, :2], 2),
        (MAP[None], PER_CHANNEL[None].double(), 2),
        (MAP[None], PER_CHANNEL[None], 3),
        (MAP[None], PER_CHANNEL[None], 0),
        (MAP[None, :0], PER_CHANNEL[None], 2),
    ],
)
def test_bad_input_to_a_norm_is_refused(x, scale, groups):
    with pytest.raises(RuntimeError, match=r"scale and shift \(K, C\).*; got"):
        torch.ops.fednf.group_norm(x, scale, scale, groups, 1e-5, False)
    with pytest.raises(RuntimeError, match=r"scale and shift \(K, C\).*; got"):
        torch.ops.fednf.group_norm_backward(x, x, scale, scale, groups, 1e-5, False)
