"""Flower's rules by name: plain NumPy's results, the bytes of long names, what is refused."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fl.config import Experiment, components
from fl.config.parsing import ConfigError
from fl.messages import records
from fl.messages.flower_internals import act_as_server
from fl.reproducibility.determinism import hidden_from_gc
from fl.reproducibility.seeds import stream
from fl.server.journal import Journal
from fl.simulation import InlineGrid, run
from strategies import find
from strategies.flower import Facade, flowers
from strategies.serving.server import Sampler
from strategies.strategy import Clients
from tests.strategies.methods.test_optimizers import QUICK

SLOW = pytest.mark.slow
N, SHAPES = 11, {"conv": (3, 2), "bias": (4,), "running": (2,)}
PARAMETERS = ["conv", "bias"]
OWN = {
    "fedmedian": {},
    "fedtrimmedavg": {"beta": 0.3},
    "krum": {"num_malicious_nodes": 2},
    "multikrum": {"num_malicious_nodes": 2, "num_nodes_to_select": 3},
    "bulyan": {"num_malicious_nodes": 2},
    "qfedavg": {"q": 0.7},
}


def made_by(facade, number: int, start, networks, examples, losses) -> dict[str, np.ndarray]:
    """Return the network that a facade makes of one round's networks."""
    act_as_server(1)
    grid = InlineGrid(Experiment())
    arrays = records.pack_arrays(start)
    asked = list(facade.configure_train(number, arrays, ConfigRecord(), grid))
    assert len(asked) == len(networks)
    fold = facade.fold(number, start)
    for k, network in enumerate(networks):
        told = {records.PARTITION: k, records.WEIGHT: examples[k], "loss": losses[k]}
        content = {records.ARRAYS: records.pack_arrays(network)}
        fold.add(Message(RecordDict({**content, records.METRICS: MetricRecord(told)}), 1, "train"))
    with hidden_from_gc():  # as in a run: Flower's classes call the collector for each reply
        found, _ = fold.result()
    assert isinstance(found, ArrayRecord)
    return records.unpack_arrays(found)


class Round:
    """Clients' networks near a start, the last of them a liar's, who is far off."""

    def __init__(self, seed: int, lie: float = 100.0):
        rng = np.random.default_rng(seed)
        self.start = {n: rng.normal(size=shape) for n, shape in SHAPES.items()}
        self.networks = [
            {n: a + 0.1 * rng.normal(size=a.shape) for n, a in self.start.items()} for _ in range(N)
        ]
        self.networks[-1] = {n: a + lie for n, a in self.start.items()}
        self.examples = rng.integers(1, 50, N).tolist()
        self.losses = rng.uniform(0.1, 3, N).tolist()

    @property
    def vectors(self) -> np.ndarray:
        rows = [[network[n].ravel() for n in PARAMETERS] for network in self.networks]
        return np.array([np.concatenate(row) for row in rows], np.float64)

    def vector(self, network: dict) -> np.ndarray:
        return np.concatenate([network[n].ravel() for n in PARAMETERS]).astype(np.float64)

    def played(self, kind: str, own: dict, number: int = 1) -> dict[str, np.ndarray]:
        """Return the network that the strategy makes, asked as the server asks it."""
        clients = Clients(N, 3, lambda number: 0.2 / number)
        sampler = Sampler(N, {k: k + 1 for k in range(N)}, lambda _: range(N), self.stream)
        facade = Facade(flowers(find(kind), own, clients), sampler, self.stream, PARAMETERS, {})
        return made_by(facade, number, self.start, self.networks, self.examples, self.losses)

    @staticmethod
    def stream(*path) -> np.random.Generator:
        return stream(1, *path)


def best(vectors: np.ndarray, f: int) -> np.ndarray:
    """Return clients by their scores: the squared distances to the n - f - 2 closest others."""
    distances = np.array([[np.sum((a - b) ** 2) for b in vectors] for a in vectors])
    others = [np.sort(np.delete(row, k)) for k, row in enumerate(distances)]
    return np.argsort([row[: len(vectors) - f - 2].sum() for row in others])


def by_numpy(kind: str, of: Round, rate: float) -> np.ndarray:
    vectors, own = of.vectors, OWN[kind]
    f = own.get("num_malicious_nodes", 0)
    match kind:
        case "fedmedian":
            return np.sort(vectors, axis=0)[N // 2]
        case "fedtrimmedavg":
            return np.sort(vectors, axis=0)[3:-3].mean(axis=0)
        case "krum":
            return vectors[best(vectors, f)[0]]
        case "multikrum":
            chosen = best(vectors, f)[: own["num_nodes_to_select"]]
            return np.average(vectors[chosen], axis=0, weights=np.array(of.examples)[chosen])
        case "bulyan":
            chosen = vectors[best(vectors, f)[: N - 2 * f]]
            middle, found = np.median(chosen, axis=0), []
            for column, m in zip(chosen.T, middle, strict=True):
                found.append(sorted(column, key=lambda w, m=m: abs(w - m))[: N - 4 * f])
            return np.mean(found, axis=1)
        case _:
            x, q, losses = of.vector(of.start), own["q"], np.array(of.losses)
            moves = (x - vectors) / rate
            h = q * losses ** (q - 1) * (moves**2).sum(axis=1) + losses**q / rate
            return x - (losses**q) @ moves / h.sum()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", OWN)
def test_a_rule_is_what_plain_numpy_makes_of_the_replies(kind, number):
    given = Round(number)
    found = given.played(kind, OWN[kind], number)
    expected = by_numpy(kind, given, 0.2 / number)
    np.testing.assert_allclose(given.vector(found), expected, rtol=1e-10, atol=1e-12)
    mean = np.average([n["running"] for n in given.networks], axis=0, weights=given.examples)
    np.testing.assert_allclose(found["running"], mean, rtol=1e-10)
    if kind != "qfedavg":  # which is for fairness, and not against liars
        assert np.abs(given.vector(found) - given.vector(given.start)).max() < 1


def test_krum_s_network_is_one_of_the_clients_bit_for_bit():
    given = Round(5)
    found = given.vector(given.played("krum", OWN["krum"]))
    assert [np.array_equal(found, vector) for vector in given.vectors].count(True) == 1


def test_with_q_of_0_all_clients_count_the_same():
    given = Round(6, lie=0.1)
    found = given.vector(given.played("qfedavg", {"q": 0.0}))
    np.testing.assert_allclose(found, given.vectors.mean(axis=0), rtol=1e-10, atol=1e-12)


LONG = {kind: dict(own) for kind, own in OWN.items()}
LONG["qfedavg"] |= {"client_learning_rate": 0.05, "train_loss_key": "loss"}


@pytest.mark.parametrize(
    "kind", [k if k == "qfedavg" else pytest.param(k, marks=SLOW) for k in OWN]
)
def test_the_name_gives_the_bytes_of_flower_s_class(tiny, tmp_path, kind):
    sampled, found = 3 if kind == "qfedavg" else N, []
    flat = {**QUICK, "sampling.clients": sampled, "rounds": 1}
    long = f"flwr.serverapp.strategy:{find(kind).__name__}"
    for name, own in ((kind, OWN[kind]), (long, LONG[kind])):
        options = {f"strategy.options.{key}": value for key, value in own.items()}
        journal = Journal(tmp_path / str(len(found)))
        found.append(run(tiny({**flat, "strategy.kind": name, **options}), journal))
    assert found[0]["model_sha256"] == found[1]["model_sha256"]
    assert found[0]["refused"] == 0


@pytest.mark.parametrize(
    ("kind", "own", "clients", "says"),
    [
        ("krum", {"num_malicious_nodes": 2}, 6, "takes 7 clients a round, and sampling.clients=6"),
        ("krum", {"num_malicious_nodes": -1}, 6, "num_malicious_nodes=-1 should be 0 or more"),
        ("multikrum", {"num_malicious_nodes": 2}, 6, "takes 7 clients a round"),
        ("multikrum", {"num_nodes_to_select": 6}, 7, "num_nodes_to_select=6 should be from 1 to 5"),
        ("multikrum", {"num_nodes_to_select": 0}, 7, "num_nodes_to_select=0 should be from 1 to 5"),
        ("bulyan", {"num_malicious_nodes": 2}, 10, "takes 11 clients a round"),
        ("fedtrimmedavg", {"beta": 0.5}, 10, "beta=0.5 should be a number from 0 to below 0.5"),
        (
            "fedtrimmedavg",
            {"beta": 0.1},
            9,
            "beta=0.1 cuts off none of 9 replies; set it to 0.1112",
        ),
        ("qfedavg", {"q": -0.1}, 10, "q=-0.1 should be 0 or more"),
        ("qfedavg", {"client_learning_rate": 0.1}, 10, "client_learning_rate; known: q"),
        ("fedmedian", {"fraction_train": 0.5}, 10, "fraction_train; it has none"),
    ],
)
def test_what_a_rule_can_t_do_is_refused_in_one_line(tiny, tmp_path, kind, own, clients, says):
    options = {f"strategy.options.{name}": value for name, value in own.items()}
    flat = {"partition.clients": 20, "sampling.clients": clients, "strategy.kind": kind}
    with pytest.raises(ConfigError, match=says) as refused:
        run(tiny({**flat, **options}), Journal(tmp_path / "run"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "own", "clients"),
    [
        ("krum", {"num_malicious_nodes": 2}, 7),
        ("multikrum", {"num_nodes_to_select": 5}, 7),
        ("bulyan", {"num_malicious_nodes": 2}, 11),
        ("fedtrimmedavg", {"beta": 0.1}, 10),
    ],
)
def test_the_least_that_a_rule_needs_is_enough(kind, own, clients):
    assert flowers(find(kind), own, Clients(clients, 1, float))


def test_what_a_rule_s_options_are():
    found = {k: set(components.parameters("strategy.kind", find(k)).model_fields) for k in OWN}
    assert found == {k: set(own) for k, own in OWN.items()}
