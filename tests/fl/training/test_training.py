import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fl.config import Client, Network
from fl.data import Dataset, Split
from fl.nn import BatchNorm, build
from fl.training import signals
from fl.training.loop import Training, evaluate, train
from fl.training.parameters import FlatNetwork
from fl.training.step import Clipping, Steps, with_vectors
from fl.vectorized.gradients import Gradients
from fl.vectorized.lanes import Lanes
from strategies.fedprox import proximal
from tests.smallest import PAIRS, SMALLEST

CPU = torch.device("cpu")

every_plainnet = pytest.mark.parametrize(
    "recipe", [name for kind, name in PAIRS if kind == "plainnet"]
)


def small(recipe: str = "none", seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build(Network(depth=3, width=4), recipe, (1, 8, 8), 3, generator).double()


def some_batches(sizes: list[int], seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(n, 1, 8, 8, generator=g, dtype=torch.float64),
            torch.randint(3, (n,), generator=g),
        )
        for n in sizes
    ]


def reference(
    module: nn.Module,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    mu: float = 0.0,
    clip: float | None = None,
) -> None:
    """The textbook loop, with the penalty in the loss."""
    start = [p.detach().clone() for p in module.parameters()]
    module.train()
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), labels)
        pairs = zip(module.parameters(), start, strict=True)
        loss = loss + mu / 2 * sum(((p - s) ** 2).sum() for p, s in pairs)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()


@every_plainnet
@pytest.mark.parametrize(
    ("knobs", "make"),
    [
        (Client(), lambda p: torch.optim.SGD(p, 0.05)),
        (
            Client(momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
        ),
        (
            Client(optimizer="adam", lr=0.01, weight_decay=0.01),
            lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
        ),
    ],
    ids=["sgd", "momentum and decay", "adam"],
)
def test_training_is_the_textbook_loop(recipe, knobs, make):
    module, data = small(recipe), some_batches([4, 1, 3, 4])
    twin = copy.deepcopy(module)
    network = FlatNetwork(module, CPU)
    train(network, data, knobs, with_vectors(proximal(0.3), {}))
    reference(twin, data, make(twin.parameters()), mu=0.3, clip=5.0)
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(network.state()[name], tensor, rtol=1e-9, atol=1e-9)


@given(st.floats(1e-3, 10), st.integers(0, 100))
def test_the_proximal_gradient_is_exactly_mu_times_the_distance(mu, seed):
    g = torch.Generator().manual_seed(seed)
    weights, start = torch.randn(2, 9, generator=g, dtype=torch.float64).requires_grad_(), None
    weights, start = weights[0].detach().requires_grad_(), weights[1].detach()
    (mu / 2 * ((weights - start) ** 2).sum()).backward()
    gradient = torch.zeros_like(start)
    proximal(mu)(gradient, weights.detach(), start, {})
    assert torch.equal(gradient, mu * (weights.detach() - start))
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-12, atol=0)


@every_plainnet
def test_loading_leaves_nothing_of_the_former_client(recipe):
    network, data = FlatNetwork(small(recipe), CPU), some_batches([4, 4])
    before = network.state()
    first = train(network, data, Client(), None)
    after = network.state()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    network.load(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state().items())
    second = train(network, data, Client(), None)
    assert all(torch.equal(after[name], tensor) for name, tensor in network.state().items())
    assert (first.loss, first.update_norm) == (second.loss, second.update_norm)


def test_a_state_that_does_not_fit_is_refused():
    network = FlatNetwork(small(), CPU)
    state = network.state()
    with pytest.raises(ValueError, match="different"):
        network.load({name: state[name] for name in list(state)[1:]})
    name = next(iter(state))
    with pytest.raises(ValueError, match="has shape"):
        network.load({**state, name: torch.zeros(1, dtype=torch.float64)})


def test_norms_are_told_by_their_places_and_clipped_steps_by_their_share():
    network, data = FlatNetwork(small(), CPU), some_batches([1] * 24)
    start = network.state()
    norms = []
    for one in data:  # each from the start, since a rate of 1e-12 moves nothing
        network.load(start)
        norms.append(train(network, [one], Client(lr=1e-12), None).gradient_norm)
    norms.sort()
    network.load(start)
    client = Client(lr=1e-12, clip=f"norm:{(norms[17] + norms[18]) / 2}")
    outcome = train(network, data, client, None)
    found = outcome.gradient_norm_p10, outcome.gradient_norm_p50, outcome.gradient_norm_p90
    assert found == pytest.approx((norms[2], norms[11], norms[20]), rel=1e-6)
    assert outcome.clipped_share == 6 / 24


def test_an_infinite_norm_leaves_the_others_finite():
    steps = Steps()
    steps.taken = [Clipping(torch.tensor(norm), None) for norm in (1.0, 2.0, math.inf)]
    found = steps.figures()
    assert (found["gradient_norm_p10"], found["gradient_norm_p50"]) == (1, 2)
    assert (found["gradient_norm"], found["gradient_norm_p90"]) == (math.inf, 2)


def test_the_figures_of_a_round_are_right():
    network, data = FlatNetwork(small(), CPU), some_batches([4, 1])
    module, start = copy.deepcopy(network.module), network.weights.clone()
    outcome = train(network, data, Client(lr=1e-12), None)
    losses = [nn.functional.cross_entropy(module(x), y, reduction="sum") for x, y in data]
    norms = []
    for x, y in data:
        module.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        norms.append(torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item())
    assert outcome.gradient_norm == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert outcome.loss == pytest.approx(sum(loss.item() for loss in losses) / 5, rel=1e-6)
    assert outcome.clipped_share == 0
    assert (outcome.steps, outcome.examples, outcome.single_value_steps) == (2, 5, 0)
    assert outcome.update_norm == pytest.approx(float((network.weights - start).norm()), rel=1e-6)


def test_a_client_without_images_changes_nothing():
    network = FlatNetwork(small(), CPU)
    before = network.weights.clone()
    outcome = train(network, [], Client(), None)
    assert (outcome.steps, outcome.loss, outcome.update_norm) == (0, 0.0, 0.0)
    assert torch.equal(before, network.weights)


def test_steps_in_which_batchnorm_sees_one_value_are_counted():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), BatchNorm(4), nn.Linear(4, 3)).double()
    network = FlatNetwork(module, CPU)
    for _ in range(2):  # a new round counts from zero
        outcome = train(network, some_batches([3, 1, 1]), Client(), None)
        assert (outcome.steps, outcome.single_value_steps) == (3, 2)


@pytest.mark.parametrize("slower", [0.1, 0.0])
def test_activation_lr_moves_only_the_scalars_of_activations(slower):
    data = some_batches([4])
    plain, slow = (FlatNetwork(small("zc-swish"), CPU) for _ in range(2))
    start = plain.state()
    train(plain, data, Client(), None)
    train(slow, data, Client(activation_lr=slower), None)
    scalars = {name for name in start if name.rpartition(".")[2] in ("center", "log_beta", "scale")}
    assert scalars
    for name in start:
        moved, moved_slowly = plain.state()[name] - start[name], slow.state()[name] - start[name]
        factor = slower if name in scalars else 1.0
        torch.testing.assert_close(moved_slowly, factor * moved)
        assert moved.any() or not factor, "nothing is frozen but by 0"


def test_evaluation_is_over_all_images_in_evaluation_mode():
    g = torch.Generator().manual_seed(3)
    images = torch.randint(256, (7, 1, 8, 8), generator=g, dtype=torch.uint8)
    split = Split(images, torch.randint(3, (7,), generator=g))
    other = Split(255 - images[:5], split.labels[:5])
    data = Dataset("x", other, split, ("a", "b", "c"), "", "")
    network = FlatNetwork(build(Network(depth=3, width=4), "batchnorm", (1, 8, 8), 3, g), CPU)
    before = network.state()
    loss, (sums,) = evaluate(network, data, split)
    network.module.eval()
    logits = network.module(data.inputs(images)).detach()
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, split.labels)), rel=1e-5)
    assert sums.tolist() == [int((logits.argmax(1) == split.labels).sum()), 7]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state().items())


def test_kernels_are_chosen_by_the_size_of_the_batch_and_given_back():
    seen = {}

    class Spy(nn.Module):
        def forward(self, x):
            seen[x.ndim, len(x)] = torch.backends.mkldnn.enabled
            return x.flatten(1)[:, :3] * self.weight

    spy = Spy()
    spy.weight = nn.Parameter(torch.ones(3))
    before = torch.backends.mkldnn.enabled
    volumes = [(torch.ones(n, 1, 2, 2, 2), torch.zeros(n, dtype=torch.long)) for n in (1, 5)]
    train(FlatNetwork(spy, CPU), [*some_batches([1, 4, 5, 32]), *volumes], Client(), None)
    images = {(4, 1): False, (4, 4): False, (4, 5): before, (4, 32): before}
    assert seen == images | {(5, 1): before, (5, 5): before}
    assert torch.backends.mkldnn.enabled == before


@pytest.mark.parametrize("recipe", ["groupnorm", "ws-groupnorm"])
@pytest.mark.parametrize("width", [4, 7, 16])
def test_strided_kernels_of_few_channels_never_take_onednn_s(recipe, width):
    def network():
        size = Network(kind="resnet", depth=18, width=width)
        return build(size, recipe, (1, 8, 8), 3, torch.Generator().manual_seed(1))

    narrow, seen = network(), set()
    narrow.register_forward_hook(lambda *_: seen.add(torch.backends.mkldnn.enabled))
    found, exact = FlatNetwork(narrow, CPU), FlatNetwork(network().double(), CPU)
    x = torch.randn(10, 8, 8, 1, generator=torch.Generator().manual_seed(2)).movedim(-1, 1)
    y = torch.arange(10) % 3
    train(found, [(x, y)], Client(lr=0.01), None)
    train(exact, [(x.double(), y)], Client(lr=0.01), None)
    assert seen == {torch.backends.mkldnn.enabled and width == 16}
    torch.testing.assert_close(found.weights.double(), exact.weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [4, 16])
def test_nor_do_they_where_they_are_measured_or_in_lanes(width):
    size = Network(kind="resnet", depth=18, width=width)
    module = build(size, "groupnorm", (1, 8, 8), 3, torch.Generator().manual_seed(1))
    network, seen = FlatNetwork(module.double(), CPU), []
    module.register_forward_hook(lambda *_: seen.append(torch.backends.mkldnn.enabled))
    lanes = Lanes(network, Training(Client()), Gradients(network), 2, (2,))
    lanes.step(dict(enumerate(some_batches([2, 2]))))
    signals.layers(network, some_batches([2])[0])
    assert seen == [torch.backends.mkldnn.enabled and width == 16] * 2


@pytest.mark.parametrize(("kind", "recipe"), [("efficientnet", "swish"), ("nfnet", "nf")])
def test_networks_with_groups_never_take_pytorch_s_own_convolutions(kind, recipe):
    seen = set()
    module = build(SMALLEST[kind], recipe, (1, 8, 8), 3, torch.Generator().manual_seed(1))
    module.register_forward_hook(lambda *_: seen.add(torch.backends.mkldnn.enabled))
    train(FlatNetwork(module.double(), CPU), some_batches([1, 4, 8]), Client(), None)
    assert seen == {torch.backends.mkldnn.enabled}
