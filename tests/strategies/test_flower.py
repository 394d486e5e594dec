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
from strategies.serving.attributes import Attributes
from tests.callbacks import EachRound

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


@pytest.mark.parametrize("bn", ["average", "pooled"])
def test_flower_s_fedavg_is_ours(of_flower, tiny, tmp_path, bn):
    ours = run(tiny({**QUICK, "state.bn": bn}), Journal(tmp_path / "ours"))
    knobs = of_flower("FedAvg", flat={"state.bn": bn})
    assert run(knobs, Journal(tmp_path / "flower"))["model_sha256"] == ours["model_sha256"]


def test_flower_s_fedprox_is_ours(of_flower, tiny, tmp_path):
    knobs = tiny({**QUICK, "strategy.kind": "fedprox", "strategy.mu": 0.1})
    ours = run(knobs, Journal(tmp_path / "ours"))
    found = run(of_flower("FedProx", {"proximal_mu": 0.1}), Journal(tmp_path / "flower"))
    assert found["model_sha256"] == ours["model_sha256"]


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
