"""Trackers write each round once, whatever becomes of the run; each test needs the real package."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import trackers
from experiments.trackers.figures import figures, shortened
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.journal import Journal
from fl.simulation import run
from tests.callbacks import EachRound

KNOBS = {"engine": "sequential", "client.batch-size": 500, "rounds": 3}
LINE = {
    "round": 2,
    "test_loss": 0.5,
    "test_macro_f1": 1,
    "test_per_class": {"cat": 0.25, "dog": None},
    "validation_accuracy": None,
    "train_seconds": 1.5,
    "refused": [{"partition": 3, "reason": "x"}],
    "by_domain": [0.5, 0.25],
    "left_out": [],
    "bytes_up": 10,
    "kind": "text",
    "good": True,
}


def test_every_number_of_a_line_is_a_figure_whatever_its_key():
    assert figures(LINE) == {
        "test/loss": 0.5,
        "test/macro_f1": 1.0,
        "test/per_class/cat": 0.25,
        "train/seconds": 1.5,
        "round/refused": 1.0,
        "round/by_domain/0": 0.5,
        "round/by_domain/1": 0.25,
        "round/left_out": 0.0,
        "round/bytes_up": 10.0,
    }


def test_knobs_that_no_table_can_show_are_hashed():
    said = shortened({"seed": 1, "components": "x" * 1000})
    assert said["seed"] == 1
    assert said["components"].startswith("sha256 ")


def test_an_unknown_tracker_and_a_missing_package_are_one_line(monkeypatch):
    with pytest.raises(ConfigError, match="no tracker tensorbord; did you mean tensorboard"):
        trackers.watchers(["tensorbord"], [])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--track wandb .*: pip install 'fednf\[wandb\]'"):
        trackers.watchers(["wandb:here"], [])


def of_tensorboard(folder: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("**/events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    found.pop("knobs/text_summary")
    return found


def of_mlflow(folder: Path) -> dict[str, list[int]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (entry,) = client.search_runs([experiment.experiment_id])
    assert (entry.info.status, entry.data.params["rounds"]) == ("FINISHED", "3")
    return {
        name: [metric.step for metric in client.get_metric_history(entry.info.run_id, name)]
        for name in entry.data.metrics
    }


def of_wandb(folder: Path) -> dict[str, list[int]]:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, list[int]] = {}
    for raw in records(path.read_bytes()):
        record = Record.FromString(raw)
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                found.setdefault(name, []).append(record.history.step.num)
    return found


def records(raw: bytes):
    """Yield what a log of LevelDB's kind holds: blocks of 32 KiB with chunks of records."""
    place, whole = 7, b""
    while place + 7 <= len(raw):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(raw[place + 4 : place + 6], "little"), raw[place + 6]
        whole += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.fixture(params=["tensorboard", "mlflow", "wandb"])
def tracker(request, tmp_path, monkeypatch):
    """A tracker whose package is here, with its figures so far: name -> rounds, in their order."""
    pytest.importorskip(request.param)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    folder = tmp_path / "tracked"
    readers = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb}
    (make,) = trackers.watchers([f"{request.param}:{folder}"], [])
    text = f"{request.param}:{folder}"
    return SimpleNamespace(make=make, text=text, read=lambda: readers[request.param](folder))


KILLED = """
import json, os, signal, sys
from pathlib import Path
from experiments.trackers import watchers
from fl.config import Experiment
from fl.server.watching.callback import Callback
from fl.server.journal import Journal
from fl.simulation import run

class Kill(Callback):
    def round_done(self, line):
        if line["round"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

knobs = Experiment.from_flat(json.loads(sys.argv[2]))
made = [make() for make in watchers([sys.argv[3]], [])]
run(knobs, Journal(Path(sys.argv[1])), callbacks=[*made, Kill()])
"""


def stop(line) -> None:
    if line["round"] == 1 and not line.replayed:
        raise KeyboardInterrupt


def expected(journal: Journal) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in journal.rounds():
        for name in figures(line):
            found.setdefault(name, []).append(line["round"])
    return found


@pytest.mark.filterwarnings("ignore")  # what those packages warn of is not ours to mend
def test_a_resumed_run_has_every_round_once(tiny, tmp_path, tracker):
    journal, knobs = Journal(tmp_path / "runs" / "mine"), tiny(KNOBS)
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, callbacks=[tracker.make(), EachRound(stop)])
    run(knobs, journal, callbacks=[tracker.make()], resume=True)
    assert tracker.read() == expected(journal)
    run(knobs, journal, callbacks=[tracker.make()])  # finished, and told once more
    assert tracker.read() == expected(journal)
    assert expected(journal)["test/loss"] == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_killed_has_every_round_once(tiny, tmp_path, tracker):
    journal, knobs = Journal(tmp_path / "runs" / "mine"), tiny(KNOBS)
    flat = json.dumps(knobs.to_flat())
    words = [sys.executable, "-c", KILLED, str(journal.folder), flat, tracker.text]
    path = os.pathsep.join(place for place in sys.path if place)
    killed = subprocess.run(words, env={**os.environ, "PYTHONPATH": path})
    assert killed.returncode == -signal.SIGKILL
    run(knobs, journal, callbacks=[tracker.make()], resume=True)
    assert tracker.read() == expected(journal)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_begun_anew_takes_the_place_of_the_former(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    knobs = tiny({**KNOBS, "rounds": 1})
    for folder in ("a", "b"):
        journal = Journal(tmp_path / folder / "mine")
        run(knobs, journal, callbacks=[trackers.TensorBoard(tmp_path / "tracked")])
    assert of_tensorboard(tmp_path / "tracked") == expected(journal)


MINE = """
import json
import fl.server.watching.callback

class Log(fl.server.watching.callback.Callback):
    def round_done(self, line):
        with open("log.txt", "a") as file:
            file.write(f"{line['round']} {line['test_loss'] > 0}\\n")

class Broken(Log):
    def round_done(self, line):
        super().round_done(line)
        raise OSError(28, "no room")

def function(line):
    pass
"""
SET = [
    word
    for key, value in {
        "network.depth": 3, "network.width": 4, "rounds": 1, "client.batch-size": 500,
        "partition.clients": 5, "sampling.clients": 2,
    }.items()
    for word in ("--set", f"{key}={value}")
]  # fmt: skip


def test_a_callback_of_one_s_own_is_told_by_the_command_line(fednf, tmp_path):
    (tmp_path / "my.py").write_text(MINE)
    answer = fednf("run", *SET, "--callback", "my.py:Log", "--out", "a", "--json")
    assert answer.status == 0
    assert (tmp_path / "log.txt").read_text() == "0 True\n1 True\n"
    plain = fednf("run", *SET, "--out", "b", "--json")
    told, alone = (json.loads(each.lines[-1]) for each in (answer, plain))
    assert told["model_sha256"] == alone["model_sha256"]
    identity = [Journal(tmp_path / name).header()["identity"] for name in ("a", "b")]
    assert identity[0] == identity[1]


def test_a_bug_in_it_is_status_1_with_file_and_line(fednf, tmp_path):
    (tmp_path / "my.py").write_text(MINE)
    answer = fednf("run", *SET, "--callback", "my.py:Broken", "--out", "a")
    assert answer.status == 1
    said = answer.err.splitlines()[-1]
    assert "callback Broken.round_done: OSError: [Errno 28] no room (" in said
    assert "my.py:13)" in said
    assert "--resume goes on" in said
    assert fednf("run", *SET, "--out", "a", "--resume").status == 0


WRONG = {
    "my.py:Nobody": "has no Nobody",
    "my.py:function": "this is no fl.Callback",
    "my.py:json": "this is no fl.Callback",
    "Log": "expected path/file.py:Name or package.module:Name",
    "nowhere.py:Log": "no file nowhere.py",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_callback_is_bad_input(fednf, tmp_path, name):
    (tmp_path / "my.py").write_text(MINE)
    answer = fednf("run", *SET, "--callback", name, "--out", "a")
    assert (answer.status, answer.out) == (2, "")
    assert WRONG[name] in answer.err
    assert not (tmp_path / "a").exists()


STUDY = """
from fl.simulation.study import Study
from fl.config import Experiment
knobs = {"network.depth": 3, "network.width": 4, "rounds": 1, "client.batch-size": 500}
knobs |= {"partition.clients": 5, "sampling.clients": 2}
STUDY = Study("mine", "Why?", tuple(Experiment.from_flat({**knobs, "seed": n}) for n in (1, 2)))
"""


@pytest.mark.slow
def test_every_run_of_a_study_tells_a_callback_of_its_own(fednf, tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "my.py").write_text(MINE)
    assert fednf("study", "study.py", "--jobs", "1", "--callback", "my.py:Log").status == 0
    assert (tmp_path / "log.txt").read_text() == "0 True\n1 True\n" * 2


def test_flower_s_server_makes_the_callbacks_that_its_knob_names(tmp_path):
    with pytest.raises(ConfigError, match="should be an absolute path"):
        Experiment.from_flat({"run.callbacks": "my.py:Log"})
    with pytest.raises(ConfigError, match=r"or package\.module:Name, not Log"):
        Experiment.from_flat({"run.callbacks": "Log"})
    knobs = Experiment.from_flat({"run.callbacks": f"{tmp_path}/my.py:Log"})
    assert knobs.identity == Experiment().identity
