"""SCAFFOLD and FedDyn: a quadratic federation's optimum, the first round, lanes, the same bytes."""

import numpy as np
import pytest
import torch

from fl.config import Client
from fl.training.loop import Training
from strategies import find
from strategies.making import made
from strategies.strategy import Done, Gathered, Reply, Strategy
from tests.fl.vectorized import test_scheduler as lanes

SLOW = pytest.mark.slow
CLIENTS, SIZE, STEPS, RATE = 4, 3, 5, 0.05
ROUNDS = {"fedavg": 100, "scaffold": 200, "feddyn": 700}
"""Enough of them, where all clients take part in each."""
KINDS = ["scaffold", "feddyn"]
OWN = {"fedavg": {}, "scaffold": {"eta": 0.8}, "feddyn": {"alpha": 0.5}}


class Quadratics:
    """Clients with F_i(w) = ½(w - b_i)ᵀA_i(w - b_i), who make some steps of gradient descent."""

    def __init__(self, strategy: Strategy, steps: list[int] | None = None, rate: float = RATE):
        rng = np.random.default_rng(3)
        roots = rng.normal(size=(CLIENTS, SIZE, SIZE))
        self.a = torch.tensor(roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(SIZE))
        self.b = torch.tensor(rng.normal(size=(CLIENTS, SIZE)) * 3)
        self.strategy, self.steps, self.rate = strategy, steps or [STEPS] * CLIENTS, rate
        self.kept = [{n: torch.zeros(SIZE).double() for n in self.strategy.kept} for _ in range(4)]
        self.state = {name: np.zeros(SIZE) for name in self.strategy.shared}

    @property
    def optimum(self) -> np.ndarray:
        weighted = torch.einsum("kij,kj->i", self.a, self.b)
        return torch.linalg.solve(self.a.sum(0), weighted).numpy()

    def client(self, k: int, start: torch.Tensor, number: int) -> tuple[np.ndarray, dict]:
        vectors = {n: torch.tensor(self.state[n]) for n in self.strategy.shared} | self.kept[k]
        weights, correct = start.clone(), self.strategy.correction()
        for _ in range(self.steps[k]):
            gradient = self.a[k] @ (weights - self.b[k])
            if correct:
                correct(gradient, weights, start, vectors)
            weights -= self.rate * gradient
        done = Done(start, weights, vectors, number, self.rate, 1, self.steps[k], 0.0)
        sent = self.strategy.finish(done) or {}
        self.kept[k] = {name: vectors[name] for name in self.strategy.kept}
        return weights.numpy(), {name: vector.numpy() for name, vector in sent.items()}

    def round(self, number: int, x: np.ndarray, asked: list[int]) -> np.ndarray:
        gathered = Gathered(number, CLIENTS, x, self.state)
        told = [self.client(k, torch.tensor(x), number) for k in asked]
        replies = [
            Reply(k, 1, self.steps[k], 0.0, sent, lambda y=y: y)
            for k, (y, sent) in zip(asked, told, strict=True)
        ]
        for reply in replies:
            self.strategy.receive(gathered, reply)
        weights = [self.strategy.weight(reply) for reply in replies]
        gathered.mean = np.average([y for y, _ in told], axis=0, weights=weights)
        gathered.count = len(asked)
        for name in self.strategy.sent:
            gathered.sums[name] = sum(sent[name] for _, sent in told)
        return self.strategy.aggregate(gathered)


@pytest.mark.parametrize(
    "some", [False, pytest.param(True, marks=SLOW)], ids=["all", "two a round"]
)
@pytest.mark.parametrize("kind", ["fedavg", *KINDS])
def test_corrections_reach_the_optimum_of_quadratics_and_fedavg_does_not(kind, some):
    clients, x = Quadratics(made(find(kind), OWN[kind])), np.zeros(SIZE)
    rng = np.random.default_rng(5)
    for number in range(1, ROUNDS[kind] * (2 if some else 1) + 1):
        asked = sorted(rng.choice(CLIENTS, 2, replace=False).tolist()) if some else [0, 1, 2, 3]
        x = clients.round(number, x, asked)
    gap = np.abs(x - clients.optimum).max()
    assert gap > 1e-2 if kind == "fedavg" else gap < 1e-10


def test_scaffold_begins_as_fedavg_with_equal_weights():
    start = np.arange(SIZE) * 1.0
    both = [Quadratics(made(find(kind), OWN[kind])) for kind in ("fedavg", "scaffold")]
    first = [clients.client(2, torch.tensor(start), 1)[0] for clients in both]
    assert np.array_equal(*first)


def test_scaffold_s_variates_are_mean_gradients():
    clients, x = Quadratics(made(find("scaffold"), OWN["scaffold"])), np.ones(SIZE)
    x = clients.round(1, x, [0, 1, 2, 3])
    mean = sum(kept["c_i"] for kept in clients.kept) / CLIENTS
    np.testing.assert_allclose(clients.state["c"], mean.numpy(), rtol=1e-12)
    clients.round(2, x, [1, 3])
    mean = sum(kept["c_i"] for kept in clients.kept) / CLIENTS
    np.testing.assert_allclose(clients.state["c"], mean.numpy(), rtol=1e-12)


class Remembering(lanes.Local):
    """A client in float64 whose vectors are random."""

    def begin(self, network):
        begun = super().begin(network)
        g = torch.Generator().manual_seed(100 + self.seed)
        for name in ("c", "c_i", "h_i"):
            begun.vectors[name] = torch.randn(len(network.weights), generator=g).double()
        return begun


@pytest.mark.parametrize("kind", KINDS)
def test_lanes_train_as_clients_alone(kind):
    network = lanes.flat_network("plainnet", "zc-swish")
    tasks = [Remembering(k, size, 2) for k, size in enumerate([3, 1, 5])]
    for task in tasks:
        task.start = network.weights.clone()
    how = Training(Client(lr=0.01), made(find(kind), OWN[kind]).correct)
    lanes.assert_same(*lanes.both_ways(network, tasks, how, 2))
