"""Flower's own strategies: repeatable, resumed to the byte, and its FedAvg is ours."""

import random

import numpy as np
import pytest
from flwr.serverapp import strategy as flower

from fl.config.parsing import ConfigError
from fl.server.journal import Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import run
from strategies import arrays as npy
from strategies import find
from strategies.flower import Facade, flowers
from strategies.making import made
from strategies.serving.attributes import Attributes
from strategies.serving.server import Sampler
from strategies.strategy import Clients, Gathered
from tests.callbacks import EachRound
from tests.conftest import ENGINES
from tests.strategies.methods.test_optimizers import replies
from tests.strategies.rules.test_rules import Round, made_by

QUICK = {
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 5,
    "rounds": 3,
    "engine": "sequential",
}
QUICK |= {"recipe": "batchnorm", "network.width": 2}
OPTIONS = {
    "FedAdam": {"eta": 0.01},
    "FedYogi": {},
    "FedAvgM": {"server_momentum": 0.9},
    "FedMedian": {},
    "FedTrimmedAvg": {},
    "Krum": {"num_malicious_nodes": 1},
}


@pytest.fixture
def of_flower(tiny):
    def make(name: str, options: dict | None = None, flat: dict | None = None):
        own = {f"strategy.options.{key}": value for key, value in (options or {}).items()}
        kind = f"flwr.serverapp.strategy:{name}"
        return tiny({**QUICK, "strategy.kind": kind, **own, **(flat or {})})

    return make


def stop(line) -> None:
    if line["round"] == 2:
        raise ValueError


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_strategy_gives_the_same_bytes_twice_and_resumed(of_flower, tmp_path, name):
    knobs = of_flower(name, OPTIONS[name])
    random.seed(1)
    first = run(knobs, Journal(tmp_path / "first"))
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002, the global generator is what must not matter
    with pytest.raises(CallbackFailed):
        run(knobs, Journal(tmp_path / "again"), callbacks=[EachRound(stop)])
    again = run(knobs, Journal(tmp_path / "again"), resume=True)
    assert again["model_sha256"] == first["model_sha256"]
    assert first["refused"] == 0


@pytest.mark.parametrize(
    "flat", [{"state.bn": "average"}, {"state.bn": "pooled"}, ENGINES["vectorized"]]
)
def test_flower_s_fedavg_is_ours(of_flower, tiny, tmp_path, flat):
    ours = run(tiny({**QUICK, **flat}), Journal(tmp_path / "ours"))
    knobs = of_flower("FedAvg", flat=flat)
    assert run(knobs, Journal(tmp_path / "flower"))["model_sha256"] == ours["model_sha256"]


def test_flower_s_fedprox_is_ours(of_flower, tiny, tmp_path):
    knobs = tiny({**QUICK, "strategy.kind": "fedprox", "strategy.mu": 0.1})
    ours = run(knobs, Journal(tmp_path / "ours"))
    found = run(of_flower("FedProx", {"proximal_mu": 0.1}), Journal(tmp_path / "flower"))
    assert found["model_sha256"] == ours["model_sha256"]


ADAPTIVE = {"eta": 0.2, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01}
SAME = {
    "FedAvg": ({}, {}),
    "FedAvgM": ({"server_learning_rate": 0.5, "server_momentum": 0.7}, {"eta": 0.5, "beta": 0.7}),
    "FedAdagrad": ({"eta": 0.2, "tau": 0.01}, {"eta": 0.2, "tau": 0.01}),
    "FedAdam": (ADAPTIVE, ADAPTIVE),
    "FedYogi": (ADAPTIVE, ADAPTIVE),
}


@pytest.mark.parametrize("name", SAME)
def test_three_rounds_of_flower_s_are_ours_up_to_rounding(name):
    """Flower's FedAdam has a rate of its own in each round, and ours gets it."""
    theirs, own = SAME[name]
    sampler = Sampler(3, {k: k + 1 for k in range(3)}, lambda _: range(3), Round.stream)
    strategy = flowers(getattr(flower, name), theirs, Clients(3, 3, float))
    facade = Facade(strategy, sampler, Round.stream, ["w"], {})
    rng, state = np.random.default_rng(1), {}
    start = rng.normal(size=4)
    for number, spread in enumerate((0.1, 10.0, 1.0), 1):
        given, rates = replies(rng, spread), {}
        if name == "FedAdam":
            root = (1 - own["beta_2"] ** (number + 1)) ** 0.5
            rates = {"eta": own["eta"] * root / (1 - own["beta_1"] ** (number + 1))}
        networks, examples = [{"w": r.weights} for r in given], [r.examples for r in given]
        found = made_by(facade, number, {"w": start}, networks, examples, [0.0] * 3)["w"]
        gathered = Gathered(number, 3, start, state)
        gathered.mean = np.average([r.weights for r in given], axis=0, weights=examples)
        expected = made(find(name.lower()), {**own, **rates}).aggregate(gathered)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert np.abs(expected - start).max() > 1e-3
        start = expected


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(of_flower, tmp_path):
    knobs = of_flower("FedAdam", OPTIONS["FedAdam"])
    alone = run(knobs, Journal(tmp_path / "one"))
    assert run(knobs, Journal(tmp_path / "two"), workers=2)["model_sha256"] == alone["model_sha256"]


MINE = """
from flwr.serverapp.strategy import FedAvg

class Mine(FedAvg):
    def __init__(self, noted: float = 1.0):
        super().__init__()
        self.noted, self.seen = {NOTED}, []

    def configure_train(self, server_round, arrays, config, grid):
        assert self.min_train_nodes == len(list(grid.get_node_ids())) == 5
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        self.seen.append([reply.content["metrics"]["partition-id"] for reply in replies])
        assert len(self.seen) == server_round and self.seen[-1] == sorted(self.seen[-1])
        return super().aggregate_train(server_round, replies)
"""


@pytest.mark.slow
def test_a_subclass_of_one_s_own_sees_the_round_and_remembers(tiny, tmp_path):
    (tmp_path / "mine.py").write_text(MINE.replace("{NOTED}", "noted"))
    knobs = tiny({**QUICK, "strategy.kind": f"{tmp_path / 'mine.py'}:Mine"})
    whole = run(knobs, Journal(tmp_path / "whole"))
    with pytest.raises(CallbackFailed):
        run(knobs, Journal(tmp_path / "part"), callbacks=[EachRound(stop)])
    part = run(knobs, Journal(tmp_path / "part"), resume=True)
    assert part["model_sha256"] == whole["model_sha256"]


def test_what_a_checkpoint_can_t_hold_is_refused_before_the_first_round(tiny, tmp_path):
    (tmp_path / "mine.py").write_text(MINE.replace("{NOTED}", "iter(())"))
    knobs = tiny({**QUICK, "strategy.kind": f"{tmp_path / 'mine.py'}:Mine"})
    with pytest.raises(ConfigError, match=r"Mine\.noted holds a tuple_iterator, which") as error:
        run(knobs, Journal(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "experiment.json").exists()


def test_how_many_are_asked_is_not_flower_s_to_say_nor_is_it_private(of_flower, tmp_path):
    for knobs, told in (
        (of_flower("FedAvg", {"fraction_train": 0.1}), "sampling.clients says how many"),
        (of_flower("FedAvg", flat={"privacy.kind": "server"}), "set privacy.kind=none"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(knobs, Journal(tmp_path))


def test_attributes_come_back_as_they_were():
    strategy = flower.FedAvg()
    arrays = {"w": np.arange(6.0).reshape(2, 3).T, "n": np.int64(3)}
    strategy.kept = {"arrays": arrays, 7: (None, True, [0.1, float("inf"), "text", b"bytes"])}
    strategy.record = npy.record({"w": np.float32([1, 2])})
    strategy.inner = flower.FedAvgM(server_momentum=0.5)
    inner, rule = strategy.inner, strategy.train_metrics_aggr_fn
    attributes = Attributes(strategy)
    stored = attributes.stored()
    strategy.kept, strategy.record = None, None
    inner.server_momentum = 0.1
    attributes.restore(stored)
    assert strategy.kept[7] == (None, True, [0.1, float("inf"), "text", b"bytes"])
    np.testing.assert_array_equal(strategy.kept["arrays"]["w"], arrays["w"])
    assert type(strategy.kept["arrays"]["n"]) is np.int64
    assert npy.arrays(strategy.record)["w"].tolist() == [1, 2]
    assert (strategy.inner, strategy.train_metrics_aggr_fn) == (inner, rule)
    assert inner.server_momentum == 0.5
