"""Every method by name ends with the same bytes on every runtime, and where it was stopped.

The table goes through all strategies, and with them through what a client can do differently: its
steps, what stays with it, its normalizers. `FEDNF_FULL=1` has all of them under `flwr run`, which
takes a quarter of a minute each; otherwise three stand for them.
"""

import os
from contextlib import closing
from pathlib import Path

import pytest

from fl.config.parsing import to_toml
from fl.data import fashion_mnist_small
from fl.server.journal import Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import run
from strategies import STRATEGIES
from tests import flower
from tests.callbacks import EachRound
from tests.conftest import ENGINES

pytestmark = pytest.mark.slow

QUICK = {
    "partition.kind": "dirichlet",
    "partition.clients": 60,
    "sampling.clients": 3,
    "client.batch-size": 16,
    "engine": "sequential",
    "rounds": 3,
}
DIFFERENT = {
    "fedavg": {
        "strategy.options.eta": 0.7,
        "client.optimizer": "adamw",
        "client.warmup": 1,
        "recipe": "salunet",
        "state.scalars": "softplus",
    },
    "fedprox": {"strategy.mu": 0.1, "client.accumulate": 2, "privacy.kind": "server"},
    "fednova": {"client.momentum": 0.9, "client.nesterov": True, "client.steps": 5},
    "fedavgm": {"recipe": "batch-renorm", "state.bn": "recalibrate"},
    "fedadagrad": {"recipe": "nf", "state.weights": "standardized", "network.feature-norm": True},
    "fedadam": {"recipe": "hbn", "state.bn": "recalibrate", "state.local": "*.mixture"},
    "fedyogi": {"recipe": "fbn", "state.bn": "pooled", "client.lr-schedule": "exp:0.5"},
    "fedexp": {"recipe": "salunet", "task.logit-adjustment": "fedlc:0.5"},
    "scaffold": {"recipe": "salunet", "state.local": "activations", "partition.held-out": 0.2},
    "feddyn": {"recipe": "batchnorm", "state.local": "norm", "partition.held-out": 0.2},
    "fedmedian": {
        "client.momentum": 0.5,
        "client.carry-momentum": True,
        "recipe": "ws-groupnorm",
        "network.groups": 2,
    },
    "fedtrimmedavg": {"strategy.options.beta": 0.34, "recipe": "salunet"},
    "krum": {"state.local": "head", "sampling.clients": 5, "task.logit-adjustment": "fedrs:0.5"},
    "multikrum": {"state.local": "layers.*", "recipe": "layernorm", "sampling.clients": 5},
    "bulyan": {
        "sampling.clients": 7,
        "strategy.options.num_malicious_nodes": 1,
        "recipe": "batchnorm",
        "state.fixed-from": 2,
    },
    "qfedavg": {"client.lr-schedule": "exp:0.5", "network.kind": "resnet", "network.squeeze": 2},
}
"""What else a client of a strategy does differently; of one that is not here, nothing."""
UNDER_FLOWER = STRATEGIES if os.environ.get("FEDNF_FULL") else ("fednova", "fedadam", "scaffold")


@pytest.fixture
def method(tiny):
    """Make the experiment of a strategy by its name."""

    def make(kind: str, flat: dict | None = None):
        own = DIFFERENT.get(kind, {})
        deep = {"network.depth": 8} if "network.kind" in own else {}
        return tiny({**QUICK, **deep, **own, "strategy.kind": kind, **(flat or {})})

    return make


@pytest.fixture(scope="module")
def flower_home(tmp_path_factory):
    """Give Flower a home of its own."""
    with flower.flower_home(tmp_path_factory.mktemp("flower")) as environment:
        yield environment


def stop(line: dict) -> None:
    if line["round"] == 1:
        raise ValueError


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize(
    ("engine", "workers"), [("sequential", 2), ("vectorized", 1)], ids=["two workers", "lanes"]
)
def test_stopped_and_resumed_it_ends_with_the_same_bytes(method, tmp_path, kind, engine, workers):
    knobs = method(kind, ENGINES[engine])
    whole, part = Journal(tmp_path / "whole"), Journal(tmp_path / "part")
    expected = run(knobs, whole)
    with pytest.raises(CallbackFailed):
        run(knobs, part, callbacks=[EachRound(stop)])
    found = run(knobs, part, workers=workers, resume=True)
    assert found["model_sha256"] == expected["model_sha256"]
    assert [line["loss"] for line in part.clients()] == [line["loss"] for line in whole.clients()]
    assert found["refused"] == 0


@pytest.mark.usefixtures("rays_leftovers")
def test_ray_ends_with_the_same_bytes(method, tmp_path):
    pytest.importorskip("ray")
    from fl.simulation.ray_pool import RayPool

    knobs = {kind: method(kind) for kind in STRATEGIES}
    expected = {kind: run(knobs[kind], Journal(tmp_path / kind)) for kind in STRATEGIES}
    with closing(RayPool(size=2)) as pool:
        found = {k: run(knobs[k], Journal(tmp_path / f"ray-{k}"), pool=pool) for k in STRATEGIES}
    for key in ("model_sha256", "final_loss"):
        assert {k: of[key] for k, of in found.items()} == {k: of[key] for k, of in expected.items()}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("kind", UNDER_FLOWER)
def test_flwr_run_ends_with_the_same_bytes(method, tmp_path, flower_home, monkeypatch, kind):
    knobs = method(kind, {"partition.clients": 8, "run.dir": str(tmp_path / "flower")})
    expected = run(knobs, Journal(tmp_path / "inline"))
    monkeypatch.setenv("XDG_CACHE_HOME", flower_home["XDG_CACHE_HOME"])
    fashion_mnist_small.fill_cache()  # as every fednf command does
    (tmp_path / "run.toml").write_text(to_toml(knobs.to_flat()))
    flower.flwr_run(tmp_path / "run.toml", 8, 2, flower_home)
    found = flower.wait_for(Journal(tmp_path / "flower"), 120)
    assert found["model_sha256"] == expected["model_sha256"]
