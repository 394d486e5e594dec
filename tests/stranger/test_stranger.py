"""A stranger's folder: all is his own, from files that import only `fl`, torch and NumPy.

The files in `project/` are a network with its activation, a loss and a metric, a data set, a deal,
and a strategy with state on the server and with clients. They get all that ours get.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fl
from fl.client.method import method_of
from fl.config import Experiment
from fl.config.parsing import ConfigError, to_toml
from fl.data import Share, share
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.tasks import objective
from fl.training.loop import Training
from fl.training.parameters import FlatNetwork, build_network
from fl.vectorized.gradients import Gradients
from tests.callbacks import EachRound
from tests.deployment import Site
from tests.fl.vectorized import test_scheduler as lanes
from tests.flower import flower_home, flwr_run, wait_for

PROJECT = Path(__file__).parent / "project"
ROOT = Path(fl.__file__).parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of the stranger's folder, in which he works."""
    folder = Path(shutil.copytree(PROJECT, tmp_path / "project"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def inline(tmp_path_factory) -> Journal:
    """The run in one process."""
    journal = Journal(tmp_path_factory.mktemp("inline") / "run")
    run(Experiment.from_toml(PROJECT / "experiment.toml"), journal)
    return journal


def model(journal: Journal) -> str:
    result = journal.result()
    assert result is not None
    return result["model_sha256"]


def test_he_imports_nothing_of_ours_but_fl():
    text = (PROJECT / "mine.py").read_text() + (PROJECT / "layers.py").read_text()
    imported = {
        line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))
    }
    assert imported <= {"fl", "layers", "numpy", "torch", "torch.nn.functional"}


@pytest.mark.slow
def test_workers_give_the_same_model(project, inline, tmp_path):
    journal = Journal(tmp_path / "two")
    run(Experiment.from_toml(project / "experiment.toml"), journal, workers=2)
    assert model(journal) == model(inline)
    lines = [{k: v for k, v in line.items() if "seconds" not in k} for line in journal.rounds()]
    ours = [{k: v for k, v in line.items() if "seconds" not in k} for line in inline.rounds()]
    assert lines == ours
    assert {"test_confidence", "test_accuracy", "validation_confidence"} <= lines[-1].keys()


def test_an_interrupted_run_goes_on_to_the_same_bytes(project, inline, tmp_path):
    def stop(line):
        if line["round"] == 2:
            raise KeyboardInterrupt

    knobs = Experiment.from_toml(project / "experiment.toml")
    journal = Journal(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, callbacks=[EachRound(stop)])
    assert journal.checkpoint().strategy  # the server's velocity
    for name in ("mine.py", "layers.py"):  # nor does it need his files for that
        (project / name).unlink()
    run(Experiment.from_flat(journal.header()["knobs"]), journal, resume=True)
    assert model(journal) == model(inline)


@pytest.mark.slow
def test_sigkill_and_resume_give_the_same_bytes(project, inline, tmp_path):
    folder = tmp_path / "killed"
    words = [sys.executable, "-m", "fednf", "run", "--config", "experiment.toml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*words, "--out", folder], env=environment)
    end = time.monotonic() + 120
    while not (folder / "rounds.jsonl").exists() or len(Journal(folder).rounds()) < 2:
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    again = [sys.executable, "-m", "fednf", "run", "--out", folder, "--resume"]
    subprocess.run(again, env=environment, check=True, timeout=120)
    assert model(Journal(folder)) == model(inline)


def test_one_character_changes_the_identity_and_is_refused(project, inline, tmp_path):
    before = Experiment.from_toml(project / "experiment.toml")
    (project / "layers.py").write_text((project / "layers.py").read_text() + "#")
    after = Experiment.from_toml(project / "experiment.toml")
    assert after.identity != before.identity
    copy = Journal(Path(shutil.copytree(inline.folder, tmp_path / "copy")))
    (copy.folder / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"layers\.py has changed, at first in line 16"):
        run(after, copy, resume=True)


def test_lanes_train_what_one_client_after_another_does(project, inline, tmp_path):
    knobs = Experiment.from_toml(project / "experiment.toml")
    lanes = {"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "eager"}
    journal = Journal(tmp_path / "lanes")
    run(knobs.replace(lanes), journal)
    ours, theirs = (Journal(j.folder).checkpoint().model for j in (inline, journal))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-3, atol=1e-5)


class Local(lanes.Local):
    """A client of his deal with his images, in float64, that remembers a step of its own."""

    def __init__(self, number: int, share: Share, network: FlatNetwork) -> None:
        super().__init__(number, len(share.train), 4)
        self.share, self.start = share, network.weights.clone()

    def begin(self, network):
        begun, dataset = super().begin(network), self.share.dataset
        mine = dataset.train.only(self.share.train)
        inputs = dataset.inputs(mine.images).double()
        begun.batches = zip(inputs.split(4), mine.labels.split(4), strict=True)
        begun.vectors["last"] = torch.full_like(network.weights, 0.01 * self.seed)
        return begun


def test_in_float64_lanes_train_what_one_client_after_another_does(project):
    knobs = Experiment.from_toml(project / "experiment.toml")
    module = build_network(knobs, torch_stream(0, "init")).module.double()
    network = FlatNetwork(module, torch.device("cpu"), foreign=True)
    how = Training(knobs.client, method_of(knobs).correct, objective=objective(knobs))
    shares = [share({"partition-id": n, "num-partitions": 4}, knobs) for n in range(4)]
    tasks = [Local(n, own, network) for n, own in enumerate(shares)]
    assert len({task.images for task in tasks}) > 1
    program = Gradients(network, loss=how.objective.loss)
    lanes.assert_same(*lanes.both_ways(network, tasks, how, 3, program))


def test_the_report_has_his_names(project, inline):
    from experiments import report

    page = report.write(inline.folder).read_text()
    for name in ("mine.py:Careful", "mine.py:Net", "mine.py:uneven", "mine.py:stripes"):
        assert name in page
    assert "confidence" in page


def test_his_model_is_used_without_his_files(project, inline, monkeypatch):
    monkeypatch.chdir("/")
    loaded = fl.load_model(inline.folder)
    assert loaded.classes == ("flat", "up", "steep", "down")
    assert type(loaded.network).__name__ == "Net"


@pytest.mark.slow
@pytest.mark.usefixtures("rays_leftovers")
def test_ray_gives_the_same_model(project, inline, tmp_path):
    pytest.importorskip("ray")
    from fl.simulation.ray_pool import RayPool

    knobs = Experiment.from_toml(project / "experiment.toml")
    for name in ("mine.py", "layers.py"):  # actors get the source with their work
        (project / name).unlink()
    pool = RayPool(size=2)
    try:
        run(knobs, Journal(tmp_path / "ray"), pool=pool)
    finally:
        pool.close()
    assert model(Journal(tmp_path / "ray")) == model(inline)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_flwr_run_gives_the_same_model(project, inline, tmp_path):
    knobs = Experiment.from_toml(project / "experiment.toml")
    knobs = knobs.replace({"run.dir": str(tmp_path / "flower")})
    (tmp_path / "run.toml").write_text(to_toml(knobs.to_flat()))
    with flower_home(tmp_path / "home") as environment:
        flwr_run(tmp_path / "run.toml", 4, 2, environment)
        wait_for(Journal(tmp_path / "flower"), 60)
    assert model(Journal(tmp_path / "flower")) == model(inline)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_devices_give_the_same_model(project, inline, tmp_path):
    site = Site(tmp_path / "site", Experiment.from_toml(project / "experiment.toml"))
    for name in ("mine.py", "layers.py"):
        (project / name).unlink()
    try:
        site.begin()
        site.start("run.sh")
        assert site.result()["model_sha256"] == model(inline)
    finally:
        site.end()
    told = json.loads((site.folder / "run" / "experiment.json").read_text())
    assert told["knobs"]["strategy.kind"] == "mine.py:Careful"
