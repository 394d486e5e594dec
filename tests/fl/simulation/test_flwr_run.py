"""The same experiment under `flwr run`, Flower's own Ray simulation, ends with the same bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fl.config.parsing import to_toml
from fl.data import fashion_mnist_small
from fl.server.journal import Journal
from fl.simulation import run
from tests import flower
from tests.flower import wait_for

ROOT = Path(__file__).parents[3]
METHODS = {"strategy.kind": "fedadam", "client.lr-schedule": "cosine", "client.steps": 9}
METHODS |= {"client.accumulate": 2, "client.momentum": 0.9, "client.carry-momentum": True}
GIVEN = {"run.start-from": "first", "state.local": "head"}
LIARS = {"faults.kind": "statistics", "faults.share": 0.6}


@pytest.fixture(scope="module")
def flower_home(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Give Flower a home of its own."""
    with flower.flower_home(tmp_path_factory.mktemp("flower")) as environment:
        yield environment


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("flat", "workers"),
    [
        ({"recipe": "zc-swish", "signals.every": 1}, 2),
        ({"recipe": "batchnorm", "strategy.kind": "fedprox", "strategy.mu": 0.1}, 1),
        ({"recipe": "batchnorm", "strategy.kind": "fedprox", "strategy.mu": 0.1}, 2),
        ({**LIARS, "recipe": "batchnorm", "state.bn": "pooled", "state.fixed-from": 2}, 2),
        ({"recipe": "batchnorm", "state.bn": "recalibrate", **METHODS}, 2),
        ({"recipe": "batchnorm", "state.bn": "local", "partition.held-out": 0.2}, 2),
        ({**GIVEN, "recipe": "none", "data.validation": 0.2}, 2),
    ],
    ids=[
        "zc-swish and fedavg",
        "batchnorm and fedprox, one worker",
        "batchnorm and fedprox, two workers",
        "fixed, and liars about statistics",
        "recalibrate, steps, a schedule and fedadam",
        "local",
        "given weights, and a head that stays",
    ],
)
def test_flwr_run_ends_with_the_same_model(flower_home, tmp_path, tiny, monkeypatch, flat, workers):
    flat = {**flat, "client.batch-size": 4, "engine": "sequential"}
    flat["run.dir"] = str(tmp_path / "flower")
    if "run.start-from" in flat:
        run(tiny({"recipe": flat["recipe"], "rounds": 1}), Journal(tmp_path / "first"))
        flat["run.start-from"] = str(tmp_path / "first")
    knobs = tiny(flat)
    inline = run(knobs, Journal(tmp_path / "inline"))
    monkeypatch.setenv("XDG_CACHE_HOME", flower_home["XDG_CACHE_HOME"])
    fashion_mnist_small.fill_cache()  # as every fednf command does
    (tmp_path / "run.toml").write_text(to_toml({**knobs.to_flat(), "run.start-sha256": ""}))
    flower.flwr_run(tmp_path / "run.toml", 5, workers, flower_home)
    journal = Journal(tmp_path / "flower")
    there = wait_for(journal, 180)  # Ray begins late on a busy machine
    assert there["model_sha256"] == inline["model_sha256"]
    assert there["final_accuracy"] == inline["final_accuracy"]
    figures = ("partition", "held", "examples", "steps", "loss", "update_norm", "global_correct")
    ours, theirs = Journal(tmp_path / "inline").clients(), journal.clients()
    assert [[c[f] for f in figures] for c in ours] == [[c[f] for f in figures] for c in theirs]
    assert [c.get("fault") for c in ours] == [c.get("fault") for c in theirs]
    assert any("fault" in c for c in ours) == (knobs.faults.kind != "none")
    assert journal.signals() == Journal(tmp_path / "inline").signals()
    assert bool(journal.signals()) == knobs.signals.due(0, 2)
