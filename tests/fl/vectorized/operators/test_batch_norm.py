"""Batch normalization in C++ is what PyTorch's is of each lane's real examples alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fl.nn.layers.normalizers.batch_norm import BatchNorm, padded, padded_batch_norm
from fl.vectorized import operators
from fl.vectorized.operators import norms
from tests.fl.vectorized.operators.values import error


@st.composite
def cases(draw):
    """Images, scale, shift, a gradient, how many are real, and perhaps running statistics."""
    lanes, batch, channels = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9))
    )
    sides = draw(st.lists(st.integers(1, 9) | st.sampled_from([16, 33]), min_size=0, max_size=3))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = 3 * torch.randn(lanes, batch, channels, *sides[:2], generator=noise) + 2
    scale, shift, mean = torch.randn(3, lanes, channels, generator=noise)
    real = torch.randint(1, batch + 1, (lanes,), generator=noise).float()
    running = [mean, torch.rand(lanes, channels, generator=noise) + 0.1]
    grad = torch.randn(x.shape, generator=noise)
    return x, scale, shift, grad, real, running if draw(st.booleans()) else []


def results(take, case, dtype):
    """Return what lanes come to with both moments, and the gradients."""
    x, scale, shift, grad, real, running = case
    leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x, scale, shift)]
    others = (real.to(dtype), *(t.to(dtype) for t in running))
    y, *moments = torch.vmap(lambda *tensors: take(*tensors, eps=1e-5))(*leaves, *others)
    return y, *torch.autograd.grad(y, leaves, grad.to(dtype)), *moments


def condition(case):
    """Return how far rounding of the inputs moves results and gradients, see `test_norms`."""
    x, scale, _, grad, real, running = case
    rows = [
        lane[:count].transpose(0, 1).flatten(1)
        for lane, count in zip(x.double(), real.int(), strict=True)
    ]
    variances = [*(values.var(1, correction=0) for values in rows), *running[1:]]
    r = (min(float(values.min()) for values in variances) + 1e-5) ** -0.5
    moved = 2**-24 * float(x.abs().max()) * r
    added = x[0].numel() // x.shape[2]
    largest = max(float(grad.abs().max()), 1) * max(float(scale.abs().max()), 1)
    return moved * largest * max(r, added)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_it_is_the_layer_s_formula_in_float64(case):
    wanted = results(padded_batch_norm, case, torch.float64)
    for found, exact in zip(results(norms.batch_norm, case, torch.float32), wanted, strict=True):
        bound = 1e-5 * max(exact.abs().max(), 1) + 4 * condition(case)
        assert (found - exact).abs().max() <= bound


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 2))
def test_that_formula_is_pytorch_s_of_the_real_examples(case, rows):
    """With one row an example or several, for outputs, gradients and moved running statistics."""
    x, scale, shift, grad, real, running = (t if isinstance(t, list) else t[0] for t in case)
    count, channels = int(real), len(scale)
    x, grad = (t.double().repeat_interleave(rows, 0) for t in (x, grad))
    x = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(count), dtype=x.dtype)
    grad[count * rows :] = 0
    found = []
    for given_rows in (x, x[: count * rows]):
        norm = BatchNorm(channels).double()
        norm.weight.data, norm.bias.data = scale.double(), shift.double()
        if running:
            norm.running_mean, norm.running_var = (t[0].double() for t in running)
        inputs = given_rows.clone().requires_grad_()
        if given_rows is x:
            with padded([norm], real.double(), len(x) // rows):
                y = norm(inputs)
        else:
            y = norm(inputs)
        y.backward(grad[: len(y)])
        of = slice(count * rows)
        found.append([y[of], inputs.grad[of], norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_a_lane_s_results_are_the_same_bytes_alone_and_among_others(case):
    x, scale, shift, grad, real, running = case
    running = [t[:1] for t in running] or [torch.zeros_like(scale[:1])] * 2
    alone = [t[:1] for t in (x, scale, shift)]
    crowd = [torch.cat([torch.full_like(t, torch.nan), t, t.neg(), t]) for t in alone]
    many = [t[:1].expand(4, *t.shape[1:]) for t in (grad, real, *running)]
    one = [grad[:1], real[:1], *running]
    found = []
    for (up, count, *before), tensors in ((one, alone), (many, crowd)):
        moments = torch.ops.fednf.batch_moments(tensors[0], *before, count, bool(case[-1]))
        rest = (*tensors, moments, count, bool(case[-1]), 1e-5, False)
        y = torch.ops.fednf.batch_norm(*rest)
        found.append((moments, y, *torch.ops.fednf.batch_norm_backward(up, *rest)))
    for single, among in zip(*found, strict=True):
        assert torch.equal(among[[1, 3]], single.expand(2, *single.shape[1:]))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_with_a_relu_behind_it_the_norm_gives_what_both_give(case):
    """The same bytes, and a NaN stays one."""
    x, scale, shift, grad, real, running = case
    x[0, 0, 0] = torch.nan
    before = running or [torch.zeros_like(scale)] * 2
    moments = torch.ops.fednf.batch_moments(x, *before, real, bool(running))
    rest = x, scale, shift, moments, real, bool(running), 1e-5
    forward, backward = torch.ops.fednf.batch_norm, torch.ops.fednf.batch_norm_backward
    y = torch.relu(forward(*rest, False))
    both = y, *backward(torch.ops.aten.threshold_backward(grad, y, 0), *rest, False)
    found = forward(*rest, True), *backward(grad, *rest, True)
    for one, other in zip(found, both, strict=True):
        assert torch.equal(one.nan_to_num(9), other.nan_to_num(9))


MAP, PER_CHANNEL, ONE = torch.zeros(2, 4, 3, 3), torch.ones(4), torch.ones(())


@pytest.mark.parametrize(
    "arguments",
    [
        (MAP.double(), PER_CHANNEL.double(), PER_CHANNEL.double(), ONE.double()),
        (MAP, PER_CHANNEL.double(), PER_CHANNEL, ONE),
        (MAP.to("meta"), PER_CHANNEL, PER_CHANNEL, ONE),
        (MAP[:0], PER_CHANNEL, PER_CHANNEL, ONE),
    ],
)
def test_which_norms_it_does_not_take_it_says(arguments):
    assert norms.takes(MAP, PER_CHANNEL, PER_CHANNEL, ONE, eps=1e-5)
    assert not norms.takes(*arguments, eps=1e-5)


def test_within_the_mode_a_norm_is_two_operators_that_move_running_statistics():
    x = torch.randn(2, 4, 3, 3)
    ours, theirs = BatchNorm(4), BatchNorm(4)
    with operators.Operators(), padded([ours], ONE + 1, 2):
        graph = make_fx(ours)(x)
    assert "fednf.batch_norm.default" in graph.code
    assert "fednf.batch_moments.default" in graph.code
    ours.running_mean.zero_()
    ours.running_var.fill_(1)
    y = theirs(x)
    with operators.Operators(), padded([ours], ONE + 1, 2):
        assert error(ours(x), y) <= 1e-5
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert error(mine, other) <= 1e-5


@pytest.mark.parametrize(
    ("x", "scale", "real"),
    [
        (MAP[None], PER_CHANNEL, ONE[None]),
        (MAP[None], PER_CHANNEL[None, :2], ONE[None]),
        (MAP[None], PER_CHANNEL[None].double(), ONE[None]),
        (MAP[None], PER_CHANNEL[None], ONE),
        (MAP[None], PER_CHANNEL[None], ONE[None].double()),
        (MAP[None, :0], PER_CHANNEL[None], ONE[None]),
        (MAP[None], PER_CHANNEL[None], 0 * ONE[None]),
        (MAP[None], PER_CHANNEL[None], 3 * ONE[None]),
    ],
)
def test_bad_input_is_refused(x, scale, real):
    moments = torch.zeros(1, 3, 4)
    with pytest.raises(RuntimeError, match=r"moments are \(K, 3, C\); got"):
        torch.ops.fednf.batch_norm(
            MAP[None], *[PER_CHANNEL[None]] * 2, moments[:, :2], ONE[None], True, 1e-5, False
        )
    for call in (
        lambda: torch.ops.fednf.batch_moments(x, scale, scale, real, True),
        lambda: torch.ops.fednf.batch_norm(x, scale, scale, moments, real, True, 1e-5, False),
        lambda: torch.ops.fednf.batch_norm_backward(
            x, x, scale, scale, moments, real, True, 1e-5, False
        ),
    ):
        with pytest.raises(RuntimeError, match=r"\(K, C\).*; got|examples \d are real"):
            call()
