"""A client's step by its textbook: Nesterov, AdamW, accumulated gradients, momentum carried on."""

import copy

import pytest
import torch

from fl.config import Client
from fl.tasks import PLAIN
from fl.training.accumulation import Accumulated
from fl.training.loop import Training, train, train_task
from fl.training.parameters import FlatNetwork
from fl.training.step import MOMENTUM
from fl.vectorized.gradients import Gradients
from fl.vectorized.scheduler import train_in_lanes
from fl.vectorized.tracing import TracedGradients
from tests.fl.training.test_training import CPU, reference, small, some_batches
from tests.fl.vectorized.test_scheduler import assert_same, both_ways, clients, flat_network

DECAYING = Client(optimizer="adamw", lr=0.01, weight_decay=0.1)
LEADING = Client(momentum=0.9, nesterov=True, weight_decay=0.01)


@pytest.mark.parametrize(
    ("knobs", "make"),
    [
        (LEADING, lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.01, nesterov=True)),
        (DECAYING, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    ],
    ids=["nesterov", "adamw"],
)
def test_training_is_torch_s(knobs, make):
    module, data = small("zc-swish"), some_batches([4, 1, 3, 4])
    twin = copy.deepcopy(module)
    network = FlatNetwork(module, CPU)
    train(network, data, knobs, None)
    reference(twin, data, make(twin.parameters()), clip=5.0)
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(network.state()[name], tensor, rtol=1e-10, atol=1e-10)


def test_nesterov_s_first_two_steps_by_hand():
    from fl.training.step import SGD

    first, second = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 4.0]).double()
    optimizer = SGD(Client(momentum=0.5, nesterov=True), torch.zeros(2).double())
    assert optimizer.direction(first.clone()).tolist() == [1.5, -3.0]  # g + m·g
    velocity = 0.5 * first + second
    assert optimizer.direction(second.clone()).tolist() == (second + 0.5 * velocity).tolist()


@pytest.mark.parametrize("recipe", ["zc-swish", "groupnorm", "batchnorm"])
def test_accumulated_parts_are_one_batch_where_there_are_no_batch_statistics(recipe):
    data = some_batches([6, 6, 5])
    whole, cut = (FlatNetwork(small(recipe), CPU) for _ in range(2))
    large = train(whole, data, Client(momentum=0.5), None)
    parted = Accumulated(PLAIN.mean, 2, cut.norms)
    found = train(cut, data, Client(momentum=0.5), None, parted)
    assert (found.steps, found.examples) == (large.steps, large.examples) == (3, 17)
    gap = float((whole.weights - cut.weights).abs().max())
    if recipe == "batchnorm":  # it sees each part by itself
        assert gap > 1e-3
        return
    assert gap < 1e-12
    assert found.loss == pytest.approx(large.loss, rel=1e-12)
    assert found.gradient_norm == pytest.approx(large.gradient_norm, rel=1e-7)


STEPS = [
    Client(lr=0.01, batch_size=2, accumulate=3),
    Client(lr=0.01, batch_size=1, accumulate=4, momentum=0.9, nesterov=True),
    DECAYING,
]


@pytest.mark.parametrize("recipe", ["batchnorm", "zc-swish"])
@pytest.mark.parametrize("knobs", STEPS, ids=["parts", "nesterov in parts", "adamw"])
def test_lanes_step_as_clients_alone(recipe, knobs):
    network = flat_network("plainnet", recipe)
    size = knobs.batch_size * knobs.accumulate
    tasks = clients(network, [7, 1, 13, 6], size)
    padded = (1, 2, 4)[: {1: 1, 2: 2, 4: 3}[knobs.batch_size]]
    assert_same(*both_ways(network, tasks, Training(knobs), 2, padded_sizes=padded), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, True])
def test_traced_passes_accumulate_too(native):
    network = flat_network("plainnet", "zc-swish")
    tasks = clients(network, [7, 1, 13, 6], 6)
    how = Training(Client(lr=0.01, batch_size=2, accumulate=3))
    program = TracedGradients(network, native, 2, False, "", PLAIN.loss)
    assert_same(*both_ways(network, tasks, how, 2, program, (1, 2)))


CARRIED = Client(lr=0.01, momentum=0.9, carry_momentum=True)


def in_two_rounds(network: FlatNetwork, how: Training, lanes: int) -> list[torch.Tensor]:
    """Return each client's velocity and weights after it has trained twice from the start."""
    tasks = clients(network, [5, 2, 4], 2)
    memory = [torch.zeros_like(network.weights) for _ in tasks]
    for task, velocity in zip(tasks, memory, strict=True):
        begin = task.begin

        def remembering(network, begin=begin, velocity=velocity):
            begun = begin(network)
            begun.vectors[MOMENTUM] = velocity.clone()
            return begun

        def keeping(network, begun, outcome, velocity=velocity):
            velocity.copy_(begun.vectors[MOMENTUM])
            return network.weights.clone()

        task.begin, task.end = remembering, keeping
    for _ in range(2):
        if lanes:
            program = Gradients(network)
            found = dict(train_in_lanes(network, tasks, how, program, lanes, (1, 2)))
            ends = [found[place] for place in range(len(tasks))]
        else:
            ends = [train_task(network, task, how) for task in tasks]
    return [*ends, *memory]


def test_momentum_is_carried_on_alike_alone_and_in_lanes():
    alone, lanes = (
        in_two_rounds(flat_network("plainnet", "zc-swish"), Training(CARRIED), lanes)
        for lanes in (0, 2)
    )
    for mine, theirs in zip(alone, lanes, strict=True):
        assert float(mine.abs().max()) > 0
        torch.testing.assert_close(theirs, mine, rtol=1e-10, atol=1e-12)


def test_momentum_that_is_carried_on_is_one_long_round():
    data = some_batches([3, 4, 2, 4])
    once, twice = (FlatNetwork(small(), CPU) for _ in range(2))
    train(once, data, CARRIED, None)
    velocity = torch.zeros_like(twice.weights)
    for part in (data[:2], data[2:]):
        train(twice, part, CARRIED, None, velocity=velocity)
    assert torch.equal(once.weights, twice.weights)
