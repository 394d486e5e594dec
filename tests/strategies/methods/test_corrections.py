"""SCAFFOLD and FedDyn: a quadratic federation's optimum, the first round, rounds by hand, lanes."""

import numpy as np
import pytest
import torch

from fl.config import Client, Experiment
from fl.tasks import objective
from fl.training.loop import Training, train_task
from fl.training.parameters import FlatNetwork
from fl.vectorized.gradients import Gradients
from fl.vectorized.scheduler import train_in_lanes
from strategies import find
from strategies.making import made
from strategies.strategy import Done, Gathered, Reply, Strategy
from tests.conftest import ENGINES
from tests.fl.vectorized import test_scheduler as lanes

SLOW = pytest.mark.slow
CLIENTS, SIZE, STEPS, RATE = 4, 3, 5, 0.05
ROUNDS = {"fedavg": 100, "scaffold": 200, "feddyn": 700}
"""Enough of them, where all clients take part in each."""
KINDS = ["scaffold", "feddyn"]
OWN = {"fedavg": {}, "scaffold": {"eta": 0.8}, "feddyn": {"alpha": 0.5}}
OWN |= {"fedprox": {"mu": 0.7}, "fednova": {}}


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
        self.examples = [1] * CLIENTS

    @property
    def optimum(self) -> np.ndarray:
        weighted = torch.einsum("kij,kj->i", self.a, self.b)
        return torch.linalg.solve(self.a.sum(0), weighted).numpy()

    def trained(self, asked: list[int], x: np.ndarray, number: int) -> list[tuple]:
        """Return each client's weights and the vectors that it sends."""
        start = torch.tensor(x)
        return [self.end(k, start, *self.descended(k, start), number) for k in asked]

    def vectors(self, k: int) -> dict[str, torch.Tensor]:
        return {n: torch.tensor(self.state[n]) for n in self.strategy.shared} | self.kept[k]

    def descended(self, k: int, start: torch.Tensor) -> tuple[torch.Tensor, dict]:
        vectors, weights, correct = self.vectors(k), start.clone(), self.strategy.correction()
        for _ in range(self.steps[k]):
            gradient = self.a[k] @ (weights - self.b[k])
            if correct:
                correct(gradient, weights, start, vectors)
            weights -= self.rate * gradient
        return weights, vectors

    def end(self, k: int, start, weights, vectors: dict, number: int) -> tuple[np.ndarray, dict]:
        done = Done(start, weights, vectors, number, self.rate, 1, self.steps[k], 0.0)
        sent = self.strategy.finish(done) or {}
        self.kept[k] = {name: vectors[name] for name in self.strategy.kept}
        return weights.numpy(), {name: vector.numpy() for name, vector in sent.items()}

    def round(self, number: int, x: np.ndarray, asked: list[int]) -> np.ndarray:
        gathered = Gathered(number, CLIENTS, x, self.state)
        told = self.trained(asked, x, number)
        replies = [
            Reply(k, self.examples[k], self.steps[k], 0.0, sent, lambda y=y: y)
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


class Regressions(Quadratics):
    """The same clients, trained by the loop or in lanes: A_i is of the inputs, and b_i fits all."""

    def __init__(self, engine: str, *more) -> None:
        super().__init__(*more)
        # The mean of squares over as many examples as there are weights.
        self.inputs = torch.linalg.cholesky(self.a).mT * (SIZE / 2) ** 0.5
        self.labels = torch.einsum("kij,kj->ki", self.inputs, self.b)
        self.network = FlatNetwork(torch.nn.Linear(SIZE, 1, bias=False).double(), lanes.CPU)
        aim = objective(Experiment.from_flat({"task.kind": "regression"}))
        client = Client(lr=self.rate, clip="none", batch_size=SIZE)
        self.how = Training(client, self.strategy.correction(), objective=aim)
        self.engine, self.program = engine, Gradients(self.network, loss=aim.loss)

    def trained(self, asked: list[int], x: np.ndarray, number: int) -> list[tuple]:
        tasks = [Regression(self, k, torch.tensor(x), number) for k in asked]
        if self.engine == "sequential":
            return [train_task(self.network, task, self.how) for task in tasks]
        found = train_in_lanes(self.network, tasks, self.how, self.program, 2, (SIZE,))
        return [one for _, one in sorted(found)]


class Regression:
    """A round of one of them."""

    def __init__(self, of: Regressions, k: int, start: torch.Tensor, number: int) -> None:
        self.of, self.k, self.start, self.number, self.steps = of, k, start, number, of.steps[k]

    def begin(self, network: FlatNetwork) -> lanes.Started:
        network.weights.copy_(self.start)
        batch = self.of.inputs[self.k], self.of.labels[self.k]
        return lanes.Started(iter([batch] * self.steps), vectors=self.of.vectors(self.k))

    def end(self, network: FlatNetwork, begun: lanes.Started, outcome) -> tuple:
        assert outcome.steps == self.steps
        weights = network.weights.clone()
        return self.of.end(self.k, self.start, weights, begun.vectors, self.number)

    def fail(self, error: Exception) -> None:
        raise error


def by_hand(kind: str, of: Quadratics, rounds: list[list[int]], x: np.ndarray) -> list[np.ndarray]:
    """Return the parameters after each round, as the papers' formulas have them."""
    a, b, own, found = of.a.numpy(), of.b.numpy(), OWN[kind], []
    c, h = np.zeros((2, SIZE))
    c_i, h_i = np.zeros((2, CLIENTS, SIZE))
    for asked in rounds:
        tau, n = np.array(of.steps)[asked], np.array(of.examples)[asked]
        moves, p = [], n / n.sum()
        for k in asked:
            y = x
            for _ in range(of.steps[k]):
                gradient = a[k] @ (y - b[k])
                if kind == "fedprox":
                    gradient = gradient + own["mu"] * (y - x)
                elif kind == "scaffold":
                    gradient = gradient + c - c_i[k]
                elif kind == "feddyn":
                    gradient = gradient + own["alpha"] * (y - x) - h_i[k]
                y = y - of.rate * gradient
            moves.append(y - x)
        moves = np.array(moves)
        if kind == "scaffold":
            changes = -c - moves / (tau[:, None] * of.rate)
            c_i[asked] += changes
            c = c + changes.sum(0) / CLIENTS
            x = x + own["eta"] * moves.mean(0)
        elif kind == "feddyn":
            h_i[asked] -= own["alpha"] * moves
            h = h - own["alpha"] * moves.sum(0) / CLIENTS
            x = x + moves.mean(0) - h / own["alpha"]
        elif kind == "fednova":
            x = x + (p @ tau) * ((p / tau) @ moves)
        else:
            x = x + p @ moves
        found.append(x)
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", OWN)
def test_rounds_are_those_by_hand(kind, engine):
    rounds = [[0, 1, 2, 3], [1, 3], [0, 2, 3], [1, 3], [0, 1, 2]]
    clients = Regressions(engine, made(find(kind), OWN[kind]), [5, 1, 3, 8])
    clients.examples = [10, 40, 20, 30]
    x = np.arange(SIZE) - 1.0
    wanted, plain = (by_hand(k, clients, rounds, x) for k in (kind, "fedavg"))
    for number, asked in enumerate(rounds, 1):
        x = clients.round(number, x, asked)
        np.testing.assert_allclose(x, wanted[number - 1], rtol=0, atol=1e-10)
    assert kind == "fedavg" or np.abs(x - plain[-1]).max() > 1e-2


def gap(clients: Quadratics, kind: str, some: bool = False) -> float:
    """Return how far the parameters are from the optimum after many rounds."""
    rng, x = np.random.default_rng(5), np.zeros(SIZE)
    for number in range(1, ROUNDS[kind] * (2 if some else 1) + 1):
        asked = sorted(rng.choice(CLIENTS, 2, replace=False).tolist()) if some else [0, 1, 2, 3]
        x = clients.round(number, x, asked)
    return np.abs(x - clients.optimum).max()


@pytest.mark.parametrize(
    "some", [False, pytest.param(True, marks=SLOW)], ids=["all", "two a round"]
)
@pytest.mark.parametrize("kind", ["fedavg", *KINDS])
def test_corrections_reach_the_optimum_of_quadratics_and_fedavg_does_not(kind, some):
    found = gap(Quadratics(made(find(kind), OWN[kind])), kind, some)
    assert found > 1e-2 if kind == "fedavg" else found < 1e-10


@SLOW
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_engines_reach_it_too(kind, engine):
    assert gap(Regressions(engine, made(find(kind), OWN[kind])), kind) < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
def test_scaffold_s_first_round_is_fedavg_s_with_equal_weights(engine):
    both = [
        Regressions(engine, made(find(kind), {}), [5, 1, 3, 8]) for kind in ("fedavg", "scaffold")
    ]
    both[1].examples = [10, 40, 20, 30]
    first, other = (clients.round(1, np.arange(SIZE) * 1.0, [0, 1, 2, 3]) for clients in both)
    assert np.array_equal(first, other)
    assert not np.array_equal(*(clients.round(2, first, [0, 1, 2, 3]) for clients in both))


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
    lanes.assert_same(*lanes.both_ways(network, tasks, how, 2), tolerance=1e-10)
