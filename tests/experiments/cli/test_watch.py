"""``fednf watch``: tables of runs that go on elsewhere, that were killed, and of what is no run."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from experiments.cli import watch
from experiments.studies.status import RunStatus, Status
from fl.reproducibility.locks import held, locked
from fl.server.journal import Journal
from fl.server.opening import opened
from fl.simulation import run
from tests.experiments.answers import refused

LONG = "zc-swish_dirichlet_alpha-0.1_fedprox_mu-0.1_client.lr-0.05_network.depth-8_seed-12345"
QUICK = {"network.depth": 3, "network.width": 4, "client.batch-size": 500}
QUICK |= {"partition.clients": 5, "sampling.clients": 2}
SET = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]


def test_what_is_no_run_is_bad_input(fednf, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert "nowhere is no folder" in refused(fednf("watch", "nowhere"))
    assert "file is no folder" in refused(fednf("watch", "file"))
    assert "empty holds no run and no study" in refused(fednf("watch", "empty"))


def test_a_finished_run_is_one_line_and_one_object(fednf, tiny, tmp_path):
    result = run(tiny(QUICK), Journal(tmp_path / "one"))
    answer = fednf("watch", "one")
    assert (answer.status, answer.err) == (0, "")
    heading, row, total = answer.lines
    assert heading.split() == ["run", "state", "round", "accuracy", "best", "images/s", "left"]
    assert row.split()[:3] == ["one", "done", "2/2"]
    assert f"{result['final_accuracy']:.3f}" in row
    assert total == "1 run: 1 done; 2 of 2 rounds"
    (found,) = (json.loads(text) for text in fednf("watch", "one", "--json").lines)
    assert (found["states"], found["rounds_done"], found["go_on_with"]) == ({"done": 1}, 2, [])
    assert found["runs"][0]["latest"] == result["final_accuracy"]


@pytest.mark.slow
def test_a_run_that_is_killed_is_seen_running_and_then_stopped(fednf, tmp_path):
    words = ["run", *SET, "--set", "rounds=100000", "--out", "one"]
    path = os.pathsep.join(place for place in sys.path if place)
    command = [sys.executable, "-m", "experiments", *words, "--quiet"]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "one" / "checkpoint.safetensors").exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            running = json.loads(fednf("watch", "one", "--json").lines[-1])
        finally:
            process.send_signal(signal.SIGKILL)
    assert running["states"] == {"running": 1}
    answer = fednf("watch", "one", "--once")
    assert "stopped" in answer.lines[1]
    assert answer.lines[-1].startswith("stopped: one: go on with: ")
    assert answer.lines[-1].endswith(" --out one --quiet --resume")


def drawn(status: Status, width: int, height: int | None) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, force_terminal=False)
    for row in watch._drawn(status, width, height):
        screen.print(row)
    return screen.file.getvalue().splitlines()


def many() -> Status:
    states = ["done"] * 30 + ["running"] * 2 + ["waiting"] * 40 + ["failed"]
    runs = tuple(
        RunStatus(f"{LONG}{n}", state, 1000, 10000, "macro f1", 0.5, 0.75, 1234567.0, 4000.0)
        for n, state in enumerate(states)
    )
    return Status(runs, 7300.0)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_what_matters_first_and_no_line_breaks(width):
    lines = drawn(many(), width, 20)
    assert len(lines) <= 20
    rows, told = lines[1:17], " ".join(lines[17:])
    assert [row.split()[1] for row in rows[:4]] == ["running", "running", "failed", "waiting"]
    assert all(row.startswith("zc-swish_d") and row.endswith(" 1:06:40") for row in rows)
    assert all(len(line) <= width for line in lines)
    assert told == (
        "and 57 more 73 runs: 2 running, 1 failed, 40 waiting, 30 done; 73000 of 730000 rounds; "
        "about 2:01:40 left"
    )


def test_a_terminal_follows_until_nothing_runs(tmp_path, tiny, monkeypatch, fednf):
    screen = io.StringIO()
    run(tiny(QUICK), Journal(tmp_path / "one"))
    (tmp_path / "one" / "result.json").rename(tmp_path / "result.json")
    monkeypatch.setattr(watch, "console", Console(file=screen, force_terminal=True, width=100))
    monkeypatch.setattr(watch, "_EVERY", 0.05)
    with locked(tmp_path / "one"):
        follower = threading.Thread(target=watch.watch, args=(tmp_path / "one",))
        follower.start()
        time.sleep(0.3)
        assert follower.is_alive()
        (tmp_path / "result.json").rename(tmp_path / "one" / "result.json")
    follower.join(10)
    assert not follower.is_alive()
    said = screen.getvalue()
    assert said.index("1 running") < said.index("1 done")


def test_a_look_does_not_keep_a_run_from_beginning(tmp_path, tiny):
    over = threading.Event()

    def stare() -> None:
        while not over.is_set():
            held(tmp_path)

    watchers = [threading.Thread(target=stare) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(20):
            with opened(Journal(tmp_path), tiny(), resume=False):
                pass
            tmp_path.mkdir(exist_ok=True)
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
