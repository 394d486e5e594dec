"""A stranger's strategy gets what ours get: the examples of docs/guide/own/strategy.md run."""

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

import fl
from fl.config import Client, Experiment
from fl.config.parsing import ConfigError
from fl.messages.strategy import strategy_of
from fl.server.journal import Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import run
from fl.training.loop import Training
from strategies.making import made
from strategies.strategy import Strategy
from tests.callbacks import EachRound
from tests.conftest import TINY
from tests.fl.vectorized import test_scheduler as lanes

PAGE = Path(fl.__file__).parents[1] / "docs" / "guide" / "own" / "strategy.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
QUICK = {
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 3,
    "rounds": 4,
    "recipe": "batchnorm",
}
QUICK |= {"engine": "sequential"}
SLOW = pytest.mark.slow
NAMES = ("momentum.py:Momentum", "scaffold.py:Scaffold")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("strategies")
    for name, text in zip(NAMES, BLOCKS, strict=True):
        (folder / name.partition(":")[0]).write_text(text)
    return folder


@pytest.fixture
def own(tiny, files):
    def make(name: str = NAMES[0], flat: dict | None = None) -> Experiment:
        return tiny({**QUICK, "strategy.kind": str(files / name), **(flat or {})})

    return make


def stopped_after(number: int) -> EachRound:
    def stop(line) -> None:
        if line["round"] == number:
            raise ValueError

    return EachRound(stop)


def test_the_toy_is_short_and_imports_only_fl():
    assert len(BLOCKS[0].splitlines()) <= 30
    assert re.findall(r"^(?:import|from) (\w+)", BLOCKS[0], re.M) == ["fl"]


@pytest.mark.parametrize(
    ("name", "workers"),
    [(NAMES[0], 1), (NAMES[1], 1), *(pytest.param(name, 2, marks=SLOW) for name in NAMES[:2])],
)
def test_a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(
    own, tmp_path, name, workers
):
    whole = run(own(name), Journal(tmp_path / "whole"))
    with pytest.raises(CallbackFailed):
        run(own(name), Journal(tmp_path / "part"), workers=workers, callbacks=[stopped_after(2)])
    part = run(own(name), Journal(tmp_path / "part"), workers=workers, resume=True)
    assert part["model_sha256"] == whole["model_sha256"]
    assert whole["refused"] == 0
    state = Journal(tmp_path / "whole").checkpoint().strategy
    assert set(state) == {"velocity" if name == NAMES[0] else "c"}
    assert any(array.any() for array in state.values())


@pytest.mark.slow
def test_both_halves_and_their_knobs_matter(own, tiny, tmp_path):
    changes = [{}, {"strategy.options.beta": 0.0}, {"strategy.options.pull": 0.0}]
    changes += [{**changes[1], **changes[2]}]
    knobs = [own(flat={"rounds": 6, **change}) for change in changes]
    found = [run(k, Journal(tmp_path / str(n)))["model_sha256"] for n, k in enumerate(knobs)]
    mean = run(tiny({**QUICK, "rounds": 6}), Journal(tmp_path / "fedavg"))["model_sha256"]
    assert len(set(found)) == 4
    assert found[3] == mean  # no momentum and no pull: FedAvg, bit for bit


def test_vectors_are_counted_and_checked(own, tiny, tmp_path):
    lines = []
    for name, knobs in (("plain", tiny(QUICK)), ("own", own(NAMES[1]))):
        journal = Journal(tmp_path / name)
        run(knobs, journal)
        lines.append(journal.rounds()[1])
    weights = sum(array.size for array in _parameters(tmp_path / "own"))
    for way in ("bytes_up", "bytes_down"):
        more = lines[1][way] - lines[0][way]
        assert 3 * 4 * weights <= more <= 3 * (4 * weights + 200), way


def _parameters(folder: Path) -> list[np.ndarray]:
    model = Journal(folder).checkpoint().model
    return [a for n, a in model.items() if "running" not in n and "num_batches" not in n]


class Remembering(lanes.Local):
    """A client in float64 whose vectors are random, and come out changed."""

    def begin(self, network):
        begun = super().begin(network)
        g = torch.Generator().manual_seed(100 + self.seed)
        for name in ("drift", "moved"):
            begun.vectors[name] = torch.randn(len(network.weights), generator=g).double()
        return begun

    def end(self, network, begun, outcome):
        state, outcome = super().end(network, begun, outcome)
        return {**state, **begun.vectors}, outcome


def heavy(gradient, weights, start, vectors) -> None:
    gradient.add_(vectors["drift"], alpha=0.1).add_(vectors["moved"], alpha=0.01)
    vectors["moved"] = 0.9 * vectors["moved"] + gradient  # new rows
    vectors["drift"].mul_(0.9)  # the same rows


@pytest.mark.parametrize("sizes", [[3, 1, 5, 2, 7], [2, 2]])
def test_clients_with_vectors_of_their_own_train_in_lanes_as_alone(sizes):
    network = lanes.flat_network("plainnet", "batchnorm")
    tasks = [Remembering(k, size, 2) for k, size in enumerate(sizes)]
    for task in tasks:
        task.start = network.weights.clone()
    lanes.assert_same(*lanes.both_ways(network, tasks, Training(Client(lr=0.01), heavy), 2))


def test_a_run_in_lanes_is_close_to_one_without(own, tmp_path):
    flat = {"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "eager"}
    alone = run(own(flat={"rounds": 1}), Journal(tmp_path / "alone"))
    together = run(own(flat={**flat, "rounds": 1}), Journal(tmp_path / "lanes"))
    assert together["refused"] == 0
    assert together["final_loss"] == pytest.approx(alone["final_loss"], rel=1e-3)


CHOOSY = """import fl
import numpy as np

class Choosy(fl.Strategy):
    holds = True

    def choose(self, number, clients, count, rng, state):
        return sorted(clients)[-count:]

    def aggregate(self, gathered):
        assert [reply.partition for reply in gathered.replies] == [97, 98, 99]
        return np.median([reply.weights for reply in gathered.replies], axis=0)
"""


def test_a_strategy_may_choose_clients_and_hold_replies(tiny, tmp_path):
    (tmp_path / "choosy.py").write_text(CHOOSY)
    journal, kind = Journal(tmp_path / "run"), f"{tmp_path / 'choosy.py'}:Choosy"
    assert run(tiny({**QUICK, "strategy.kind": kind}), journal)["refused"] == 0
    assert {line["partition"] for line in journal.clients()} == {97, 98, 99}


def test_private_strategies_see_the_mean_only(own, tmp_path):
    private = {"privacy.kind": "server", "privacy.noise": 0.1}
    assert run(own(flat=private), Journal(tmp_path / "a"))["rounds"] == 4
    with pytest.raises(ConfigError, match=r"scaffold.py:Scaffold: privacy .*\(weight, sent\)"):
        run(own(NAMES[1], private), Journal(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


class Wrong(Strategy):
    def correct(self, gradient, weights, start):
        pass


class Misspelt(Strategy):
    def agregate(self, gathered):
        return gathered.mean


class NoTuple(Strategy):
    kept = "drift"


class Silent(Strategy):
    sent = ("change",)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Wrong, r"test_strategy.py:\d+: .*should take \(self, gradient, weights, start, vectors\)"),
        (Misspelt, r"test_strategy.py:\d+: agregate: did you mean aggregate\?"),
        (NoTuple, r"kept='drift' should be a tuple of names"),
        (Silent, r"needs a method finish"),
        (dict, r"no subclass of fl.Strategy"),
    ],
)
def test_a_class_that_is_no_strategy_is_refused_in_one_line(kind, told):
    with pytest.raises(ValueError, match=told) as error:
        made(kind, {})
    assert "\n" not in str(error.value)


def test_what_would_be_lost_on_resume_is_refused(own):
    strategy = strategy_of(own())
    with pytest.raises(AttributeError, match="lost on --resume"):
        strategy.velocity = 1


@SLOW
@pytest.mark.usefixtures("rays_leftovers")
def test_ray_gives_the_same_model(own, tmp_path):
    pytest.importorskip("ray")
    from fl.simulation.ray_pool import RayPool

    expected = run(own(), Journal(tmp_path / "inline"))
    with closing(RayPool(size=2)) as pool:
        found = run(own(), Journal(tmp_path / "ray"), pool=pool)
    assert found["model_sha256"] == expected["model_sha256"]


@SLOW
def test_a_killed_run_is_resumed_to_the_byte(tiny, files, tmp_path):
    flat = {**QUICK, "rounds": 60, "strategy.kind": str(files / NAMES[0])}
    expected = run(tiny(flat), Journal(tmp_path / "whole"))
    words = [sys.executable, "-m", "experiments", "run", "--json", "--out", str(tmp_path / "run")]
    words += [w for key, value in {**TINY, **flat}.items() for w in ("--set", f"{key}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PAGE.parents[1])}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    rounds = tmp_path / "run" / "rounds.jsonl"
    while not (rounds.exists() and rounds.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
    process.kill()
    process.communicate()
    out = subprocess.run(
        [*words, "--resume"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out.splitlines()[-1])["model_sha256"] == expected["model_sha256"]
