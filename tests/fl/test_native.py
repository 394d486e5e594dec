"""The operators in C++: PyTorch's results, in every way that the cohort engine calls them."""

import os
import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from fl import native
from fl.native import convolutions, pools, rows
from fl.nn.convs import Kernel, scaled_standardized

# PyTorch's own, of modules that vmap and tracing import.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

CONVOLVE = {1: F.conv1d, 2: F.conv2d}


@pytest.fixture(scope="module", autouse=True)
def _built(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        reason = native.why_not()
    if reason:
        pytest.skip(reason)


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


def convolve(x, w, stride, padding):
    return CONVOLVE[w.dim() - 2](x, w, None, stride, padding)


def gradients(result, x, w):
    """Return the gradients of a sum with unlike weights."""
    weights = torch.arange(result.numel(), dtype=result.dtype).view(result.shape).cos()
    return torch.autograd.grad((result * weights).sum(), (x, w))


def error(found, expected):
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@settings(max_examples=200, deadline=None)
@given(st.deferred(lambda: cases() | narrow_cases()))
def test_results_and_gradients_are_pytorch_s_in_float64(case):
    x, w, stride, padding = case
    own, exact = [[t.to(dtype).requires_grad_() for t in (x, w)] for dtype in (None, torch.float64)]
    lanes = torch.vmap(lambda x, w: convolutions.conv(x, w, None, stride, padding))
    y = lanes(*own)
    expected = torch.stack([convolve(*lane, stride, padding) for lane in zip(*exact, strict=True)])
    assert error(y, expected) <= 1e-5
    for found, wanted in zip(gradients(y, *own), gradients(expected, *exact), strict=True):
        assert error(found, wanted) <= 1e-5


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


@settings(max_examples=30, deadline=None)
@given(cases() | narrow_cases())
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


def test_lanes_may_lie_apart():
    rows = torch.randn(3, 400)
    w, x = rows[:, 7:187].view(3, 5, 4, 3, 3), rows[:, 190:390].view(3, 2, 4, 5, 5)
    apart = torch.ops.fednf.lane_conv(x, w, 1, 1)
    assert torch.equal(apart, torch.ops.fednf.lane_conv(x.contiguous(), w.contiguous(), 1, 1))
    grad = torch.randn(3, 400)[:, 1:251].view(3, 2, 5, 5, 5)
    found = torch.ops.fednf.lane_conv_backward(grad, x, w, 1, 1, True)
    together = [t.contiguous() for t in (grad, x, w)]
    for one, other in zip(
        found, torch.ops.fednf.lane_conv_backward(*together, 1, 1, True), strict=True
    ):
        assert torch.equal(one, other)


def standardized(x, gain, eps=1e-5):
    return F.batch_norm(x, None, None, weight=gain, training=True, momentum=0.0, eps=eps)


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
    ours = results(lambda *a: rows.standardize(*rows.raw(*a)), torch.float32)
    for found, exact in zip(ours, wanted, strict=True):
        assert error(found, exact) <= 1e-4


@settings(max_examples=60, deadline=None)
@given(st.deferred(lambda: cases() | narrow_cases()), st.booleans())
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
    assert rows.raw(ROWS, training=True)
    assert rows.raw(x, **named) is None


def test_within_the_mode_a_standardized_convolution_is_one_operator():
    layer = scaled_standardized(Kernel(2, 3, 4, 3))
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 6, 6)
    with native.Operators():
        graph = make_fx(layer)(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert "fednf.standardized_conv.default" in graph.code
    assert "fednf.standardize." not in graph.code
    assert "lane_conv" not in graph.code
    assert error(graph(x), layer(x)) <= 1e-5
    with native.Operators():
        ready = layer.standardized()
        ready.mul_(2)
        assert error(F.conv2d(x, ready, layer.bias, 1, 1), 2 * layer(x)) <= 1e-5


def odd_values(*shape, seed=0):
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan])
    noise = torch.Generator().manual_seed(seed)
    return values[torch.randint(len(values), shape, generator=noise)]


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


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (2, 0, 1, 4, 3)])
def test_what_is_foretold_of_results_is_so_however_images_lie_in_memory(order):
    x = torch.randn(2, 3, 4, 6, 8).permute(order)
    w, gain = torch.randn(x.shape[0], 5, x.shape[2], 3, 3), torch.ones(x.shape[0], 5)
    y, pooled = torch.ops.fednf.lane_conv(x, w, 2, 1), torch.ops.fednf.max_pool(x)
    checks = ("test_schema", "test_faketensor")
    for operator, arguments in [
        (torch.ops.fednf.lane_conv, (x, w, 2, 1)),
        (torch.ops.fednf.lane_conv_backward, (y, x, w, 2, 1, True)),
        (torch.ops.fednf.standardized_conv, (x, w, gain, 1e-5, 2, 1)),
        (torch.ops.fednf.standardized_conv_backward, (y, x, w, gain, 1e-5, 2, 1, False)),
        (torch.ops.fednf.standardize, (w.flatten(2), gain, 1e-5)),
        (torch.ops.fednf.standardize_backward, (w.flatten(2), w.flatten(2), gain, 1e-5)),
        (torch.ops.fednf.max_pool, (x,)),
        (torch.ops.fednf.max_pool_backward, (pooled, x)),
    ]:
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


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


def test_within_the_mode_a_network_has_them():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2)).eval()
    x = torch.randn(3, 1, 8, 8)
    with native.Operators():
        graph = make_fx(network)(x)
    assert "fednf.lane_conv.default" in graph.code
    assert "fednf.max_pool.default" in graph.code
    assert error(graph(x), network(x)) <= 1e-5


@pytest.mark.parametrize(
    ("change", "more"), [(torch.Tensor.neg_, ()), (torch.Tensor.__iadd__, (1,))]
)
def test_what_relu_made_and_somebody_changed_is_pooled_as_it_is(change, more):
    x = torch.randn(2, 4, 4)
    with native.Operators():
        change(y := F.relu(x), *more)
        found = F.max_pool2d(y, 2)
    assert torch.equal(found, F.max_pool2d(y, 2))
    assert not torch.equal(found, F.relu(F.max_pool2d(x, 2)))


def same(x):
    return x


@pytest.mark.parametrize("relu", [F.relu, torch.relu, torch.nn.ReLU()])
@pytest.mark.parametrize("between", [same, lambda x: x + 0])
def test_relu_is_left_what_a_pool_leaves(relu, between):
    def results(x):
        y = F.max_pool2d(between(relu(x)), 2)
        weights = torch.arange(1.0, 1 + y.numel()).view(y.shape)
        return y, *torch.autograd.grad(y, x, weights)

    x = odd_values(3, 8, 40).requires_grad_()
    expected = results(x)
    with native.Operators():
        found = results(x)
    pooled_first = type(found[0].grad_fn).__name__ == "ReluBackward0"
    assert pooled_first is (between is same)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.nan_to_num(9), theirs.nan_to_num(9))


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


class Native(TorchFunctionMode):
    """Put our convolutions in the place of PyTorch's."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in CONVOLVE.values() and convolutions.supports(*args, **kwargs):
            self.calls += 1
            return convolutions.conv(*args, **kwargs)
        return func(*args, **kwargs)


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, stride=2, padding=1), torch.nn.Flatten(),
        torch.nn.Linear(36, 3),
    )  # fmt: skip


def step(module, weights, x):
    """Return the lanes' gradients of a loss, as the cohort engine takes them."""
    with torch.enable_grad():
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        losses = torch.vmap(lambda w, x: torch.func.functional_call(module, w, x).square().sum())
        total = losses(weights, x).sum()
        return torch.autograd.grad(total, list(weights.values()))


@pytest.mark.parametrize(
    "prepare", [lambda graph: graph, pytest.param(torch.compile, marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_a_traced_step_is_pytorch_s(prepare):
    module, x = network(), torch.randn(2, 1, 2, 5, 5)
    weights = {name: torch.stack([value, 2 * value]) for name, value in module.state_dict().items()}
    expected = step(module, weights, x)
    with Native() as mode:
        graph = make_fx(lambda w, x: step(module, w, x), tracing_mode="fake")(weights, x)
    assert mode.calls == 2
    assert "lane_conv_backward" in graph.code
    assert "aten.convolution" not in graph.code
    for found, wanted in zip(prepare(graph)(weights, x), expected, strict=True):
        assert error(found, wanted) <= 1e-5


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


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_narrower_vectors_give_the_same(without, tmp_path):
    chosen = "in_float64 or same_bytes or lie_apart or pools_are or is_the_two"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    there = {**os.environ, "CXX": f"c++ {without}", "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    done = subprocess.run(words, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(("compiler", "reason"), [("false", "failed"), ("no-such", "no-such")])
def test_without_a_compiler_it_says_why_not(monkeypatch, compiler, reason):
    monkeypatch.setenv("CXX", compiler)
    message = native.why_not.__wrapped__()
    assert reason in message
    assert "\n" not in message
