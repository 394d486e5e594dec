"""In lanes, BatchNorm takes statistics from real examples; those that pad a batch are nothing."""

import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fl.config import Client
from fl.nn import build, convert, fixed_statistics, forget_statistics
from fl.tasks import PLAIN
from fl.training.loop import Training, train_task
from fl.training.parameters import FlatNetwork
from fl.vectorized import operators, scheduler
from fl.vectorized.gradients import Examples, Gradients, without_side_effects
from fl.vectorized.graph_cache import load
from fl.vectorized.tracing import TracedGradients
from fl.vectorized.verification import difference, refusal
from tests.fl.vectorized.test_scheduler import CPU, Local, assert_same
from tests.smallest import SMALLEST

SMALL_STEPS = Training(Client(lr=0.01, momentum=0.5))


class Shaped(Local):
    """A client whose images have any shape."""

    def __init__(self, network: FlatNetwork, seed: int, images: int, size: int, shape) -> None:
        super().__init__(seed, images, size)
        self.start, self.shape = network.weights.clone(), shape

    def begin(self, network: FlatNetwork):
        begun = super().begin(network)
        noise = torch.Generator().manual_seed(self.seed)
        images = torch.randn(self.images, *self.shape, generator=noise, dtype=torch.float64)
        images = images.to(network.weights.dtype).split(self.batch_size)
        labels = [labels for _, labels in begun.batches]
        begun.batches = zip(images, labels, strict=True)
        return begun


def made(kind: str, shape: tuple[int, ...], recipe: str = "batchnorm") -> FlatNetwork:
    module = build(SMALLEST[kind], recipe, shape, 3, torch.Generator().manual_seed(0))
    return FlatNetwork(module.double(), CPU)


def alone_and_in_lanes(network, sizes, batch, lanes, shape, how=SMALL_STEPS, gradients=None):
    tasks = [Shaped(network, seed, size, batch, shape) for seed, size in enumerate(sizes)]
    alone = [train_task(network, task, how) for task in tasks]
    gradients = gradients or Gradients(network)
    found = dict(scheduler.train_in_lanes(network, tasks, how, gradients, lanes, (batch,)))
    return alone, [found[place] for place in range(len(tasks))]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=5),
    st.integers(1, 5),
    st.integers(2, 4),
    st.sampled_from(
        [
            ("plainnet", (1, 9)), ("plainnet", (1, 2, 2)), ("plainnet", (2, 5, 3, 4)),
            ("cnn", (1, 8, 8)), ("resnet", (1, 4, 4)), ("ffnn", (1, 4)),
        ]
    ),
    st.sampled_from(["batchnorm", "batchnorm-no-affine"]),
    st.booleans(),
)  # fmt: skip
def test_clients_with_unequal_batches_end_as_alone(sizes, batch, lanes, of, recipe, forgets):
    network = made(*of, recipe if of[0] == "plainnet" else "batchnorm")
    if forgets:
        forget_statistics(network.module)
        network = FlatNetwork(network.module, CPU)
    assert_same(*alone_and_in_lanes(network, sizes, batch, lanes, of[1]))


def test_one_real_example_of_one_pixel_takes_running_statistics_and_is_counted():
    network = made("plainnet", (1, 2, 2))
    sizes_seen = []

    class Watched(Gradients):
        def __call__(self, weights, buffers, examples):
            sizes_seen.append(examples.real.tolist())
            return super().__call__(weights, buffers, examples)

    how = Training(Client(lr=0.01))
    shape, gradients = (1, 2, 2), Watched(network)
    alone, found = alone_and_in_lanes(network, [3, 4, 1], 2, 3, shape, how, gradients)
    assert_same(alone, found)
    assert [outcome.single_value_steps for _, outcome in found] == [1, 0, 1]
    assert [sorted(sizes) for sizes in sizes_seen] == [[1, 2, 2], [1, 2]]


class Stranger(nn.Module):
    """Shows each example's rows to one BatchNorm layer after the other, and to the first again."""

    def __init__(self, mixes: str = "") -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(2), nn.BatchNorm2d(4, momentum=0.3)
        self.lift, self.out, self.mixes = nn.Linear(2, 4), nn.Linear(4, 3), mixes

    def forward(self, x):
        if self.mixes == "odd":
            x = torch.cat([x, x[:1]])
        if self.mixes == "centers":
            x = x - x.mean(0)
        rows = self.first(x.flatten(2).transpose(1, 2).flatten(0, 1))  # (examples * pixels, 2)
        if self.mixes == "order":
            rows = rows.view(len(x), -1, 2).transpose(0, 1).flatten(0, 1)
        rows = self.first(rows * 2).sigmoid()
        if self.mixes == "order":
            rows = rows.view(-1, len(x), 2).transpose(0, 1).flatten(0, 1)
        lifted = self.lift(rows).view(len(x), *x.shape[2:], 4).permute(0, 3, 1, 2)
        return self.out(self.second(lifted).tanh().mean((2, 3)))


@pytest.mark.parametrize("sizes", [[5, 3, 1], [4, 4]])
def test_a_stranger_s_layers_that_are_shared_and_see_rows_end_as_alone(sizes):
    module = convert(Stranger(), "own", shape=(2, 3, 3)).double()
    nn.init.normal_(module.second.weight)
    network = FlatNetwork(module, CPU)
    assert len(network.norms) == 2
    assert_same(*alone_and_in_lanes(network, sizes, 2, 2, (2, 3, 3)))


@pytest.mark.parametrize(
    ("mixes", "reason"),
    [
        ("", None),
        ("centers", "only pads the batch"),
        ("order", "only pads"),
        ("odd", "27 rows for 2"),
    ],
)
def test_who_mixes_examples_otherwise_is_not_padded(mixes, reason):
    module = convert(Stranger(mixes), "own", shape=(2, 3, 3))
    network = FlatNetwork(module, CPU, foreign=True)
    found = refusal(network, PLAIN, examples(network, [2, 2], 2, 2, 3, 3))
    assert reason in found if reason else found is None


def examples(network: FlatNetwork, real: list[int], size: int, *shape: int) -> Examples:
    noise, like = torch.Generator().manual_seed(1), network.weights
    inputs = torch.randn(len(real), size, *shape, generator=noise).to(like)
    counts = torch.tensor(real).to(like)
    weights = (torch.arange(size) < counts[:, None]) / counts[:, None]
    labels = torch.zeros(len(real), size, dtype=torch.long)
    return Examples(inputs, labels, weights.to(like), counts)


def test_what_pads_a_batch_may_be_anything():
    network = made("plainnet", (1, 4, 4))
    batch = examples(network, [3, 1], 4, 1, 4, 4)
    weights = network.weights.expand(2, -1)
    buffers = {n: b.expand(2, *b.shape).clone() for n, b in network.buffers.items()}
    network.module.train()
    run = without_side_effects(Gradients(network), list(buffers))
    found = run(weights, *batch.tensors(), *buffers.values())
    batch.inputs[0, 3:] = 99
    batch.inputs[1, 1:] = -7
    again = run(weights, *batch.tensors(), *buffers.values())
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    batch.inputs[0, 2] = 0
    assert not torch.equal(found[1], run(weights, *batch.tensors(), *buffers.values())[1])
    with fixed_statistics(network.module):
        kept = run(weights, *batch.tensors(), *buffers.values())[2:]
    assert all(torch.equal(a, b) for a, b in zip(kept, buffers.values(), strict=True))


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_program_that_counts_what_pads_a_batch_is_found_out(lanes):
    network = made("plainnet", (1, 4, 4))
    batch = examples(network, [4] * lanes, 4, 1, 4, 4)
    weights = network.weights.expand(lanes, -1)
    buffers = {n: b.expand(lanes, *b.shape).clone() for n, b in network.buffers.items()}
    network.module.train()
    right = without_side_effects(Gradients(network), list(buffers))
    arguments = weights, *batch.tensors(), *buffers.values()

    def counts_all(*given):
        return right(*given[:4], torch.full_like(given[4], 4), *given[5:])

    assert difference(right, right, arguments, network.segments) is None
    assert difference(counts_all, right, arguments, network.segments)


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_float32_lanes_are_as_near_to_float64_as_one_by_one(native):
    if native and operators.unavailable_reason():
        pytest.skip("no C++ compiler")
    how, sizes, shape = Training(Client(lr=1e-3)), [5, 3, 2], (1, 8, 8)
    exact = alone_and_in_lanes(made("plainnet", shape), sizes, 2, 3, shape, how)[0]
    module = build(SMALLEST["plainnet"], "batchnorm", shape, 3, torch.Generator().manual_seed(0))
    network = FlatNetwork(module, CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphs = TracedGradients(network, native, 3, False)
        alone, found = alone_and_in_lanes(network, sizes, 2, 3, shape, how, graphs)
    assert list(graphs.passes) == [torch.Size([lanes, 2, *shape]) for lanes in (3, 1)]

    def distance(results) -> float:
        return max(
            float((state[name] - right[name]).abs().max() / right[name].abs().max().clamp(1e-3))
            for (state, _), (right, _) in zip(results, exact, strict=True)
            for name in right
        )

    assert 0 < distance(found) <= 2 * distance(alone)


def test_a_traced_pass_has_no_views_of_views(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = made("plainnet", (1, 8, 8))
    graphs = TracedGradients(network, False, 2, False, "views")
    assert_same(*alone_and_in_lanes(network, [3, 4], 2, 2, (1, 8, 8), gradients=graphs))
    (path,) = tmp_path.rglob("graph-*")
    views = r"(\w+) = torch\.ops\.aten\.(?:reshape|squeeze|unsqueeze)\.\w+\((\w+)"
    found = dict(re.findall(views, load(path).code))
    assert found
    # Those that are left are of tensors that have to be copied first.
    assert 10 * sum(source in found for source in found.values()) <= len(found)


@pytest.mark.parametrize(("kind", "left"), [("plainnet", 0), ("resnet", 3)])
@pytest.mark.parametrize("recipe", ["batchnorm", "groupnorm"])
def test_in_a_traced_pass_norms_do_the_relu_right_behind_them(
    kind, left, recipe, tmp_path, monkeypatch
):
    """In a resnet, the ReLU behind each of three sums is left."""
    if operators.unavailable_reason():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shape = (1, 8, 8)
    module = build(SMALLEST[kind], recipe, shape, 3, torch.Generator().manual_seed(0))
    network = FlatNetwork(module, CPU)
    graphs = TracedGradients(network, True, 2, False, "rectified")
    alone, found = alone_and_in_lanes(network, [4, 4], 2, 2, shape, gradients=graphs)
    for (state, _), (other, _) in zip(alone, found, strict=True):
        for name in state:
            scale = state[name].abs().max().clamp(min=1e-3)
            assert (state[name] - other[name]).abs().max() <= 1e-3 * scale, name
    assert None not in graphs.passes.values()
    (path,) = tmp_path.rglob("graph-*")
    code = load(path).code
    assert [code.count(name) for name in ("aten.relu", "aten.threshold_backward")] == [left, left]
