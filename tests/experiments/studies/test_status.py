"""What the files of runs say of them, whole or not, while others write them."""

import json
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from experiments.studies.status import look
from fl.reproducibility.locks import held, locked
from fl.server.journal import Checkpoint, Journal

METRIC = {"name": "macro_f1", "title": "macro F1", "larger": True}
HEADER = {"knobs": {"rounds": 10}, "command": "fednf run --set rounds=10", "metric": METRIC}


def line(number: int, score: float = 0.5) -> dict:
    figures = {"test_loss": 1.0, "test_macro_f1": score, "seconds": 2.0}
    return {"round": number, **figures, "images": 300, "train_seconds": 1.5}


def make(folder: Path, rounds: int, scores=(), **header) -> Journal:
    """Write a run with so many finished rounds, besides round 0."""
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps({**HEADER, **header}))
    journal = Journal(folder)
    for number in range(rounds + 1):
        score = scores[number] if scores else 0.5
        state = Checkpoint(number, {"w": np.zeros(2, np.float32)})
        journal.commit(line(number, score), [], state, {})
    return journal


def test_a_run_that_somebody_is_at_work_on_is_running(tmp_path):
    make(tmp_path / "one", 3, scores=(0.1, 0.2, 0.9, 0.4))
    with locked(tmp_path / "one"):
        status = look(tmp_path)
        (run,) = status.runs
    assert (run.name, run.state, run.round, run.rounds) == ("one", "running", 3, 10)
    assert (run.score, run.latest, run.best) == ("macro F1", 0.4, 0.9)
    assert run.images_per_second == pytest.approx(200)
    assert 7 * 2.0 - 10 < run.seconds_left <= 7 * 2.0
    assert status.seconds_left == run.seconds_left
    assert (status.rounds, status.counts) == ((3, 10), {"running": 1})


def test_the_best_of_an_error_is_the_smallest(tmp_path):
    make(tmp_path / "one", 2, scores=(0.7, 0.2, 0.4), metric={**METRIC, "larger": False})
    (run,) = look(tmp_path).runs
    assert (run.latest, run.best) == (0.4, 0.2)


def test_a_run_that_nobody_is_at_work_on_says_how_to_go_on(tmp_path):
    make(tmp_path / "one", 3)
    make(tmp_path / "two", 1, command="fednf run --out two")
    make(tmp_path / "three", 1, command="flwr run")
    make(tmp_path / "four", 1, command="")
    runs = {run.name: run for run in look(tmp_path).runs}
    assert {run.state for run in runs.values()} == {"stopped"}
    again = f"go on with: fednf run --set rounds=10 --out {tmp_path}/one --resume"
    assert runs["one"].note == again
    assert runs["two"].note == "go on with: fednf run --out two --resume"
    assert runs["three"].note == "go on with: flwr run, with run.resume=true"
    assert runs["four"].note == "go on with: its program, with resume=True"
    assert look(tmp_path / "one").runs[0].name == "one"


def test_what_is_not_yet_permanent_does_not_count(tmp_path):
    journal = make(tmp_path / "one", 3)
    with (journal.folder / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(line(4)) + '\n{"round": 5, "test_')
    assert look(tmp_path).runs[0].round == 3
    (journal.folder / "checkpoint.safetensors").unlink()
    assert look(tmp_path).runs[0].round is None


def test_a_run_whose_last_word_is_an_error_has_failed(tmp_path):
    journal = make(tmp_path / "one", 3)
    journal.keep_error(2, "client-7", "ValueError: of a round that was finished all the same")
    assert look(tmp_path).runs[0].state == "stopped"
    journal.keep_error(4, "server", 'Traceback:\n  File "x"\nValueError: no luck\n')
    (run,) = look(tmp_path).runs
    assert run.state == "failed"
    assert run.note.startswith(f"ValueError: no luck (see {journal.folder}/errors/round-4-server")
    with locked(journal.folder):
        assert look(tmp_path).runs[0].state == "running"


def study(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    about = {"name": "mine", "command": "fednf study mine.py", "runs": {"a": 10, "b": 10, "c": 10}}
    (folder / "study.json").write_text(json.dumps(about))


def test_a_study_has_runs_that_wait_and_runs_that_are_done(tmp_path):
    study(tmp_path)
    make(tmp_path / "a", 10).finish({"rounds": 10})
    make(tmp_path / "b", 5)
    with locked(tmp_path / "b"):
        status = look(tmp_path)
    states = {run.name: run.state for run in status.runs}
    assert states == {"a": "done", "b": "running", "c": "waiting"}
    assert status.again == ()
    assert status.rounds == (15, 30)
    b = next(run for run in status.runs if run.name == "b")
    assert status.seconds_left == pytest.approx(3 * b.seconds_left)  # c takes twice as long as b
    stopped = look(tmp_path)
    assert stopped.again == ("fednf study mine.py",)
    assert stopped.seconds_left is None
    assert all(run.note == "" for run in stopped.runs)


def test_a_study_that_is_done_has_nothing_to_go_on_with(tmp_path):
    study(tmp_path)
    for name in "abc":
        make(tmp_path / name, 10).finish({"rounds": 10})
    assert look(tmp_path).again == ()


GARBAGE = [b"", b"{", b"\xff\xfe", b"[1, 2]\n", b'{"round": "one"}\n', b"{}\n{}\n", b"null\n"]
FILES = ["experiment.json", "rounds.jsonl", "checkpoint.safetensors", "result.json", "errors"]


@pytest.mark.parametrize("file", FILES)
def test_whatever_a_file_holds_the_other_runs_are_shown(tmp_path, file):
    make(tmp_path / "good", 3)
    for raw in GARBAGE:
        journal = make(tmp_path / "bad", 2)
        (journal.folder / file).write_bytes(raw)
        states = {run.name: run.state for run in look(tmp_path).runs}
        assert states["good"] == "stopped"
        assert states["bad"] in ("stopped", "damaged")
        shutil.rmtree(journal.folder)


@pytest.mark.parametrize("about", GARBAGE)
def test_a_study_that_can_t_be_read_is_a_folder_of_runs(tmp_path, about):
    make(tmp_path / "one", 1)
    (tmp_path / "study.json").write_bytes(about)
    assert [run.name for run in look(tmp_path).runs] == ["one"]


def test_a_file_that_is_cut_before_what_is_permanent_is_damaged(tmp_path):
    path = make(tmp_path / "one", 2).folder / "rounds.jsonl"
    whole = path.read_bytes()
    for end in range(0, len(whole), 5):
        path.write_bytes(whole[:end])
        (run,) = look(tmp_path).runs
        assert run.state == "damaged"
        assert (
            f"rounds.jsonl is damaged: it ends before line {whole[:end].count(10) + 1}" in run.note
        )
    path.write_bytes(whole + whole[:20])
    assert look(tmp_path).runs[0].state == "stopped"


def test_an_unchecked_file_that_is_cut_anywhere_is_read_up_to_there(tmp_path, make_unchecked):
    journal = make(tmp_path / "one", 2)
    make_unchecked(journal.folder)
    path = journal.folder / "rounds.jsonl"
    raw = path.read_bytes()
    for end in range(len(raw) + 1):
        path.write_bytes(raw[:end])
        (run,) = look(tmp_path).runs
        whole = raw[:end].count(b"\n") - 1
        assert (run.state, run.round) == ("stopped", whole if whole >= 0 else None)


def test_folders_may_come_and_go_while_one_looks(tmp_path):
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            with suppress(BlockingIOError), locked(make(tmp_path / "one", 2).folder):
                pass  # whoever looks locks it for a moment, and a run would try again
            shutil.rmtree(tmp_path / "one")

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        for _ in range(200):
            assert {run.name for run in look(tmp_path).runs} <= {"one"}
    finally:
        over.set()
        writer.join()
    assert look(tmp_path / "gone").runs == ()


def test_what_is_in_a_run_is_no_run(tmp_path):
    journal = make(tmp_path / "one", 1)
    make(journal.folder / "components", 1)
    assert [run.name for run in look(tmp_path).runs] == ["one"]


def test_looking_keeps_nobody_out_for_long(tmp_path):
    assert not held(tmp_path)
    with locked(tmp_path):
        assert held(tmp_path)
        assert held(tmp_path)
    assert not held(tmp_path)
