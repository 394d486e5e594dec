"""The operators in C++, in every way that the vectorized engine calls them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from fl.nn.layers.convs import Kernel, scaled_standardized
from fl.vectorized import operators
from fl.vectorized.operators import convolutions
from tests.fl.vectorized.operators.values import error, odd_values


def test_within_the_mode_a_standardized_convolution_is_one_operator():
    layer = scaled_standardized(Kernel(2, 3, 4, 3))
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 6, 6)
    with operators.Operators():
        graph = make_fx(layer)(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert "fednf.standardized_conv.default" in graph.code
    assert "fednf.standardize." not in graph.code
    assert "lane_conv" not in graph.code
    assert error(graph(x), layer(x)) <= 1e-5
    with operators.Operators():
        ready = layer.standardized()
        ready.mul_(2)
        assert error(F.conv2d(x, ready, layer.bias, 1, 1), 2 * layer(x)) <= 1e-5


def test_within_the_mode_a_network_has_them():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2)).eval()
    x = torch.randn(3, 1, 8, 8)
    with operators.Operators():
        graph = make_fx(network)(x)
    assert "fednf.lane_conv.default" in graph.code
    assert "fednf.max_pool.default" in graph.code
    assert error(graph(x), network(x)) <= 1e-5


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (torch.Tensor.neg_, ()),
        (torch.Tensor.__iadd__, (1,)),
        (lambda y: torch.neg(torch.ones_like(y), out=y), ()),
        (lambda y: F.hardtanh(input=y, inplace=True), ()),
    ],
)
def test_what_relu_made_and_somebody_changed_is_pooled_as_it_is(change, more):
    x = torch.randn(2, 4, 4)
    with operators.Operators():
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
    with operators.Operators():
        found = results(x)
    pooled_first = type(found[0].grad_fn).__name__ == "ReluBackward0"
    assert pooled_first is (between is same)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.nan_to_num(9), theirs.nan_to_num(9))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (2, 0, 1, 4, 3)])
def test_what_is_foretold_of_results_is_so_however_images_lie_in_memory(order):
    x = torch.randn(2, 3, 4, 6, 8).permute(order)
    w, gain = torch.randn(x.shape[0], 5, x.shape[2], 3, 3), torch.ones(x.shape[0], 5)
    y, pooled = torch.ops.fednf.lane_conv(x, w, 2, 1), torch.ops.fednf.max_pool(x)
    one = torch.ones(x.shape[0], x.shape[2])
    checks = ("test_schema", "test_faketensor")
    for operator, arguments in [
        (torch.ops.fednf.lane_conv, (x, w, 2, 1)),
        (torch.ops.fednf.lane_conv_backward, (y, x, w, 2, 1, True)),
        (torch.ops.fednf.standardized_conv, (x, w, gain, 1e-5, 2, 1)),
        (torch.ops.fednf.standardized_conv_backward, (y, x, w, gain, 1e-5, 2, 1, False)),
        (torch.ops.fednf.standardize, (w.flatten(2), gain, 1e-5)),
        (torch.ops.fednf.standardize_backward, (w.flatten(2), w.flatten(2), gain, 1e-5)),
        (torch.ops.fednf.group_norm, (x, one, one, 1, 1e-5, True)),
        (torch.ops.fednf.group_norm_backward, (x, x, one, one, 1, 1e-5, True)),
        (torch.ops.fednf.zc_swish, (x, one, one, one)),
        (torch.ops.fednf.zc_swish_backward, (x, x, one, one, one)),
        (torch.ops.fednf.salu, (x, one, one)),
        (torch.ops.fednf.salu_backward, (x, x, one, one)),
        (torch.ops.fednf.swalu, (x, one, one)),
        (torch.ops.fednf.swalu_backward, (x, x, one, one)),
        (torch.ops.fednf.max_pool, (x,)),
        (torch.ops.fednf.max_pool_backward, (pooled, x)),
    ]:
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


class Native(TorchFunctionMode):
    """Put our convolutions in the place of PyTorch's."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in convolutions.REPLACED and convolutions.supports(*args, **kwargs):
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
    """Return the lanes' gradients of a loss, as the vectorized engine takes them."""
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


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_narrower_vectors_give_the_same(without, tmp_path):
    chosen = "in_float64 or same_bytes or lie_apart or pools_are or is_the_two"
    files = str(Path(__file__).parent)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", files, "-k", chosen]
    there = {**os.environ, "CXX": f"c++ {without}", "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    done = subprocess.run(words, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "18 passed" in done.stdout


@pytest.mark.parametrize(("compiler", "reason"), [("false", "failed"), ("no-such", "no-such")])
def test_without_a_compiler_it_says_unavailable_reason(monkeypatch, compiler, reason):
    monkeypatch.setenv("CXX", compiler)
    message = operators.unavailable_reason.__wrapped__()
    assert reason in message
    assert "\n" not in message
