"""What callbacks are told, in which order, and what comes of a bug in one."""

import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch

from fl.server.app import serve
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.server.rounds import Runtime
from fl.server.watching.callback import Audience, Callback, CallbackFailed, Line
from fl.simulation import InlineGrid, run

KNOBS = {"engine": "sequential", "client.batch-size": 500, "rounds": 3}


class Notes(Callback):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def run_begun(self, run):
        self.info = run
        self.told.append(("begun", run.resumed_after))

    def client_done(self, line):
        self.told.append(("client", line["round"], line["partition"], line.replayed))

    def round_done(self, line):
        self.told.append(("round", line["round"], line.replayed))

    def run_ended(self, result):
        self.told.append(("ended", result["rounds"]))

    def run_stopped(self, reason):
        self.told.append(("stopped", reason))


class Stops(Callback):
    """Raises an exception when a round is told."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.number, self.error = number, error

    def round_done(self, line):
        if line["round"] == self.number and not line.replayed:
            raise self.error


def rounds(journal: Journal, numbers, replayed: bool) -> list[tuple]:
    """Return what a callback is to be told of rounds that a journal holds."""
    told = []
    for number in numbers:
        lines = [line for line in journal.clients() if line["round"] == number]
        told += [("client", number, line["partition"], replayed) for line in lines]
        told.append(("round", number, replayed))
    return told


def test_a_run_is_told_from_beginning_to_end_each_thing_once(tiny, tmp_path):
    notes, journal = Notes(), Journal(tmp_path / "run")
    run(tiny(KNOBS), journal, callbacks=[notes])
    assert notes.told == [("begun", None), *rounds(journal, range(4), False), ("ended", 3)]
    assert sum(told[0] == "client" for told in notes.told) == 6
    assert (notes.info.folder, notes.info.knobs) == (journal.folder, tiny(KNOBS))
    assert notes.info.conditions == journal.header()


def test_the_server_of_devices_tells_the_same(tiny, tmp_path):
    notes, there, knobs = Notes(), Notes(), tiny(KNOBS)
    run(knobs, Journal(tmp_path / "run"), callbacks=[there])
    started_by = {"command": "test"}
    journal, runtime = Journal(tmp_path / "served"), Runtime(InlineGrid(knobs))
    serve(runtime, knobs, journal, callbacks=[notes], started_by=started_by)
    assert notes.told == there.told
    again = Notes()
    serve(runtime, knobs, journal, callbacks=[again], started_by=started_by)
    assert again.told == [("begun", 3), *rounds(journal, range(4), True), ("ended", 3)]


def test_a_resumed_run_tells_its_former_rounds_first_and_marks_them(tiny, tmp_path):
    first, second, journal = Notes(), Notes(), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(tiny(KNOBS), journal, callbacks=[first, Stops(1, KeyboardInterrupt())])
    assert first.told[-2:] == [("round", 1, False), ("stopped", "interrupted")]
    run(tiny(KNOBS), journal, callbacks=[second], resume=True)
    there, new = rounds(journal, (0, 1), True), rounds(journal, (2, 3), False)
    assert second.told == [("begun", 1), *there, *new, ("ended", 3)]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from fl.config import Experiment
from fl.server.watching.callback import Callback
from fl.server.journal import Journal
from fl.simulation import run

class Log(Callback):
    def round_done(self, line):
        print(line["round"], line.replayed, flush=True)

os.replace, replace = (lambda *paths: count(*paths)), os.replace
commits = 0

def count(source, target):
    global commits
    commits += str(target).endswith("checkpoint.safetensors")
    if commits == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

knobs = Experiment.from_flat(json.loads(sys.argv[2]))
run(knobs, Journal(Path(sys.argv[1])), callbacks=[Log()])
"""


@pytest.mark.slow
def test_what_a_killed_run_has_told_is_on_the_disk_and_the_rest_is_told_later(tiny, tmp_path):
    """Killed between a round's line and its checkpoint: that round was not told, and never was."""
    knobs, folder = tiny(KNOBS), tmp_path / "run"
    words = [sys.executable, "-c", KILLED, str(folder), json.dumps(knobs.to_flat())]
    path = os.pathsep.join(place for place in sys.path if place)
    killed = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.splitlines() == ["0 False", "1 False"]
    assert (folder / "rounds.jsonl").read_bytes().count(b"\n") == 3
    assert len(Journal(folder).rounds()) == 2
    notes = Notes()
    run(knobs, Journal(folder), callbacks=[notes], resume=True)
    told = [entry[1:] for entry in notes.told if entry[0] == "round"]
    assert told == [(0, True), (1, True), (2, False), (3, False)]


class Meddles(Callback):
    """Does what it can to change a result."""

    def run_begun(self, run):
        run.conditions.clear()

    def client_done(self, line):
        line.clear()

    def round_done(self, line):
        torch.manual_seed(7)
        line["refused"].append("everybody")
        line["round"] = 10

    def run_ended(self, result):
        result.clear()


def test_callbacks_change_no_result_and_nothing_of_what_others_are_told(tiny, tmp_path):
    plain, other, notes = Journal(tmp_path / "plain"), Journal(tmp_path / "other"), Notes()
    result = run(tiny(KNOBS), plain)
    told = run(tiny(KNOBS), other, callbacks=[Meddles(), notes])
    assert told["model_sha256"] == result["model_sha256"]
    assert set(told) == set(result)
    assert notes.told == [("begun", None), *rounds(plain, range(4), False), ("ended", 3)]
    assert [line["refused"] for line in other.rounds()] == [[], [], [], []]
    assert notes.info.conditions["identity"] == tiny(KNOBS).identity


@pytest.mark.parametrize("error", [ValueError("no luck"), OSError(28, "disk full")])
def test_a_bug_in_a_callback_ends_the_run_with_its_place_and_costs_no_round(tiny, tmp_path, error):
    notes, journal = Notes(), Journal(tmp_path / "run")
    with pytest.raises(CallbackFailed) as raised:
        run(tiny(KNOBS), journal, callbacks=[notes, Stops(2, error)])
    said = str(raised.value)
    assert said.startswith(f"callback Stops.round_done: {type(error).__name__}: ")
    assert f"({__file__}:" in said
    assert len(said.splitlines()) == 1
    assert "Traceback" in raised.value.trace
    assert raised.value.__cause__ is error
    assert notes.told[-1] == ("stopped", f"CallbackFailed: {said}")
    assert journal.checkpoint().round == 2
    assert (journal.folder / "errors" / "round-3-server.txt").read_text() == raised.value.trace
    undisturbed = run(tiny(KNOBS), Journal(tmp_path / "other"))
    again = run(tiny(KNOBS), journal, resume=True)
    assert again["model_sha256"] == undisturbed["model_sha256"]


def test_a_debugger_gets_what_a_callback_raised(tiny, tmp_path):
    with pytest.raises(ValueError, match="no luck"):
        run(tiny(KNOBS), Journal(tmp_path), callbacks=[Stops(0, ValueError("no luck"))], debug=True)


class Bad(Callback):
    """Raises at one end of a run."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.fail)

    def fail(self, told):
        raise ValueError("no")


def test_who_did_not_hear_the_beginning_does_not_hear_the_end(tiny, tmp_path):
    before, after = Notes(), Notes()
    with pytest.raises(CallbackFailed, match=r"Bad\.run_begun"):
        run(tiny(KNOBS), Journal(tmp_path), callbacks=[before, Bad("run_begun"), after])
    assert [told[0] for told in before.told] == ["begun", "stopped"]
    assert after.told == []


def test_all_hear_the_end_although_one_fails_there_and_the_result_is_kept(tiny, tmp_path):
    after, journal = Notes(), Journal(tmp_path)
    knobs = tiny({**KNOBS, "rounds": 1})
    with pytest.raises(CallbackFailed, match=r"Bad\.run_ended"):
        run(knobs, journal, callbacks=[Bad("run_ended"), after])
    assert after.told[-1] == ("ended", 1)
    assert journal.result()["rounds"] == 1


def test_a_callback_that_fails_while_a_run_fails_hides_nothing():
    audience = Audience([Bad("run_stopped")])
    audience._begun = [*audience._callbacks]
    with pytest.raises(RunFailed, match="the reason"), audience:
        raise RunFailed("the reason")


def test_a_line_survives_the_way_to_another_process():
    line = pickle.loads(pickle.dumps(Line({"round": 3}, replayed=True)))
    assert (line, line.replayed) == ({"round": 3}, True)


def test_a_hook_that_nobody_overrides_costs_nothing(tiny, tmp_path, monkeypatch):
    """What would be read for it is not read."""
    journal, knobs, read = Journal(tmp_path), tiny({**KNOBS, "rounds": 1}), []
    run(knobs, journal)
    clients = Journal.clients
    monkeypatch.setattr(Journal, "clients", lambda each: read.append(each) or clients(each))
    reads = []
    for callbacks in ([], [Stops(9, ValueError())], [Notes(), Stops(9, ValueError())]):
        read.clear()
        run(knobs, journal, callbacks=callbacks)
        reads.append(len(read))
    assert reads == [reads[0], reads[0], reads[0] + 1]
