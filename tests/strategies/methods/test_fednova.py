"""FedNova: how far steps lead, quadratics under unequal steps, and where it is FedAvg."""

import numpy as np
import pytest
import torch

from fl.config import Client
from fl.config.parsing import ConfigError
from fl.messages.strategy import clients_of, strategy_of
from fl.server.journal import Journal
from fl.simulation import run
from fl.training.loop import Training
from fl.training.step import Update, with_vectors
from strategies import find
from strategies.fednova import FedNova, normalizer
from strategies.making import made
from strategies.strategy import Clients
from tests.conftest import ENGINES
from tests.fl.vectorized import test_scheduler as lanes
from tests.strategies.methods.test_corrections import CLIENTS, SIZE, Quadratics
from tests.strategies.methods.test_optimizers import QUICK, played, replies

SLOW = pytest.mark.slow
UNEQUAL = {**QUICK, "partition.kind": "dirichlet", "sampling.clients": 5, "client.batch-size": 4}
PULLED = {"strategy.kind": "fednova", "strategy.mu": 0.5}


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_the_normalizer_is_the_papers(steps):
    assert normalizer(steps) == steps
    for rho in (0.5, 0.9):
        expected = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
        assert normalizer(steps, rho) == pytest.approx(expected, rel=1e-12)
    for pull in (0.01, 0.4):
        expected = (1 - (1 - pull) ** steps) / pull
        assert normalizer(steps, pull=pull) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("client", "mu"),
    [
        (Client(lr=0.1, clip="none"), 0.0),
        (Client(lr=0.1, clip="none", momentum=0.8), 0.0),
        (Client(lr=0.1, clip="none", momentum=0.8, nesterov=True), 0.0),
        (Client(lr=0.1, clip="none"), 3.0),
    ],
    ids=["sgd", "momentum", "nesterov", "proximal"],
)
def test_it_is_how_far_a_client_goes_whose_gradient_is_1(client, mu):
    network, nova = lanes.flat_network("plainnet", "zc-swish"), FedNova(mu)
    start = network.weights.clone()
    update = Update(network, client, with_vectors(nova.correction(), {}), network.weights)
    for step in range(1, 8):
        update(torch.ones_like(start), start)
        moved = (start - network.weights) / client.lr
        found = normalizer(step, client.momentum, client.nesterov, client.lr * mu)
        assert (moved - found).abs().max() < 1e-12 * found


def rate(number: int) -> float:
    return 0.2 / number


TRAIN = {
    "sgd": ({}, Clients(3, 3, rate)),
    "momentum": ({}, Clients(3, 3, rate, momentum=0.9)),
    "proximal": ({"mu": 0.7}, Clients(3, 3, rate)),
}


@pytest.mark.parametrize("how", TRAIN)
def test_with_unequal_steps_it_is_the_formula(how, monkeypatch):
    own, clients = TRAIN[how]
    rng, steps = np.random.default_rng(1), (9, 1, 4)
    rounds = [replies(rng, 1.0) for _ in range(3)]
    for given in rounds:
        for reply, tau in zip(given, steps, strict=True):
            reply.steps = tau
    start = x = rng.normal(size=4)
    nova = made(FedNova, own, clients)
    monkeypatch.setattr("tests.strategies.methods.test_optimizers.made", lambda *_: nova)
    for number, (given, found) in enumerate(
        zip(rounds, played("fednova", own, rounds, start), strict=True), 1
    ):
        a = np.array([nova.length(tau, number) for tau in steps])
        p, y = np.array([0.1, 0.2, 0.7]), np.array([reply.weights for reply in given])
        x = x - (p @ a) * ((p / a) @ (x - y))
        np.testing.assert_allclose(found, x, rtol=1e-12, atol=1e-13)
        assert np.abs(x - p @ y).max() > 1e-2


def fixed_point(clients: Quadratics, weights: np.ndarray) -> np.ndarray:
    """Return where ``Σ w_i (I - (I - ηA_i)^τ_i)(x - b_i) = 0``, at which rounds stand still."""
    a, b = clients.a.numpy(), clients.b.numpy()
    powers = zip(a, clients.steps, strict=True)
    went = [
        np.eye(SIZE) - np.linalg.matrix_power(np.eye(SIZE) - clients.rate * m, n) for m, n in powers
    ]
    parts = weights[:, None, None] * np.array(went)
    return np.linalg.solve(parts.sum(0), np.einsum("kij,kj->i", parts, b))


def test_on_quadratics_with_unequal_steps_it_goes_to_the_optimum_and_fedavg_elsewhere():
    steps, gaps = [1, 2, 6, 12], []
    tau = np.array(steps)
    for kind, weights in (("fedavg", np.ones(CLIENTS)), ("fednova", 1 / tau)):
        clients, x = Quadratics(made(find(kind), {}), steps, 0.02), np.zeros(SIZE)
        for number in range(400):
            x = clients.round(number + 1, x, [0, 1, 2, 3])
        np.testing.assert_allclose(x, fixed_point(clients, weights), rtol=0, atol=1e-10)
        for eta in (1e-3, 1e-4):
            clients.rate = eta
            gaps.append(np.abs(fixed_point(clients, weights) - clients.optimum).max())
    a, b = clients.a.numpy(), clients.b.numpy()
    biased = np.linalg.solve(np.einsum("k,kij->ij", tau, a), np.einsum("k,kij,kj->i", tau, a, b))
    assert np.abs(biased - clients.optimum).max() > 0.1
    # With ever smaller rates FedAvg goes to the optimum of Σ τ_i F_i, and FedNova to that of Σ F_i.
    clients.rate = 1e-7
    np.testing.assert_allclose(fixed_point(clients, np.ones(CLIENTS)), biased, atol=1e-5)
    assert gaps[1] == pytest.approx(gaps[0], rel=0.1)
    assert gaps[3] == pytest.approx(gaps[2] / 10, rel=0.1)


@pytest.mark.parametrize(
    ("flat", "other"),
    [
        ({}, {"strategy.kind": "fedavg"}),
        (ENGINES["vectorized"], {"strategy.kind": "fedavg"}),
        pytest.param({"client.momentum": 0.9}, {"strategy.kind": "fedavg"}, marks=SLOW),
        pytest.param({"strategy.mu": 0.5}, {"strategy.kind": "fedprox"}, marks=SLOW),
    ],
)
def test_with_equal_steps_it_is_fedavg_bit_for_bit(tiny, tmp_path, flat, other):
    found = [
        run(tiny({**QUICK, "client.steps": 3, **flat, **kind}), Journal(tmp_path / str(n)))
        for n, kind in enumerate(({"strategy.kind": "fednova"}, other))
    ]
    assert found[0]["model_sha256"] == found[1]["model_sha256"]


def test_unequal_clients_count_otherwise_and_statistics_are_the_mean_s(tiny, tmp_path):
    models = []
    for kind in ("fednova", "fedavg"):
        journal = Journal(tmp_path / kind)
        run(tiny({**UNEQUAL, "rounds": 1, "strategy.kind": kind}), journal)
        models.append(journal.checkpoint().model)
        assert len({line["steps"] for line in journal.clients()}) > 1
    for name, array in models[0].items():
        same = np.array_equal(array, models[1][name])
        assert same == ("running" in name or "tracked" in name), name


def test_lanes_train_as_clients_alone():
    network = lanes.flat_network("plainnet", "zc-swish")
    tasks = lanes.clients(network, [3, 1, 5], 2)
    how = Training(Client(lr=0.01), made(FedNova, {"mu": 0.5}).correct)
    lanes.assert_same(*lanes.both_ways(network, tasks, how, 2), tolerance=1e-10)


@SLOW
def test_lanes_tell_the_same_steps_as_clients_alone(tiny, tmp_path):
    together = {"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "eager"}
    flat = {**UNEQUAL, **PULLED, "recipe": "none", "rounds": 1}
    alone = run(tiny(flat), Journal(tmp_path / "alone"))
    found = run(tiny({**flat, **together}), Journal(tmp_path / "lanes"))
    assert found["refused"] == 0
    assert found["final_loss"] == pytest.approx(alone["final_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        ({"client.optimizer": "adam"}, "client.optimizer=adam; set client.optimizer=sgd"),
        ({"client.momentum": 0.9, "client.carry-momentum": True}, "client.carry-momentum=false"),
        ({"client.momentum": 0.9, "strategy.mu": 0.1}, "client.momentum=0.9 together with"),
        ({"client.lr": 0.5, "strategy.mu": 2.0}, r"strategy.mu=2 has to be below 2$"),
        ({"strategy.options.mu": 0.1}, "the knob strategy.mu"),
    ],
)
def test_what_has_no_formula_is_refused_in_one_line(tiny, flat, says):
    with pytest.raises(ConfigError, match=says) as refused:
        strategy_of(tiny({"strategy.kind": "fednova", **flat}))
    assert "\n" not in str(refused.value)


def test_a_strategy_meets_its_clients(tiny):
    knobs = tiny({"client.momentum": 0.5, "client.nesterov": True, "client.lr-schedule": "exp:0.5"})
    met = clients_of(knobs)
    assert (met.asked, met.rounds, met.momentum, met.nesterov) == (2, 2, 0.5, True)
    assert [met.rate(number) for number in (1, 2)] == [0.05, 0.025]
    assert clients_of(tiny({"client.optimizer": "adam", "client.momentum": 0.5})).momentum == 0
