"""Killed is not killed: SIGKILL at any moment and --resume give the undisturbed run's model.

`FEDNF_FULL=1` kills 200 runs and 20 studies; otherwise a few.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl.config import Experiment
from fl.server.journal import BEST, Journal, model_sha256
from fl.server.opening import check
from fl.simulation import run

ROUNDS = 20  # so many that a signal, however late, finds the run under way
FLAT = {
    "network.depth": 3,
    "network.width": 4,
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 2,
    "client.batch-size": 4,
    "rounds": ROUNDS,
    "recipe": "batchnorm",
}
SET = [word for key, value in FLAT.items() for word in ("--set", f"{key}={value}")]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # with NumPy's threads, workers could not be forks
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
}


def kill(folder: Path, seed: int, runs: int, studies: int) -> dict:
    """Kill runs and studies by the program beside this file; returns what it counted."""
    program = Path(__file__).with_name("kills.py")
    words = [sys.executable, str(program), str(folder), *map(str, (seed, runs, studies))]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in Linux's /proc")
def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(tmp_path):
    counts = kill(tmp_path, seed=7, runs=2, studies=0)
    assert counts["runs"] == 2
    assert counts["kills"] >= 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in Linux's /proc")
def test_whatever_is_killed_whenever_and_with_whom_ends_as_if_nothing_had_happened(tmp_path):
    """Single processes and whole groups; at any time, between two files, inside a write."""
    full = bool(os.environ.get("FEDNF_FULL"))
    runs, studies = (200, 20) if full else (8, 1)
    counts = kill(tmp_path, seed=1, runs=runs, studies=studies)
    sys.stdout.write(f"{counts}\n")
    assert (counts["runs"], counts["studies"]) == (runs, studies)
    assert counts["kills"] >= runs
    for what in ("of a group", "inside a write", "inside a checkpoint's write"):
        assert counts[f"kills {what}"] >= (runs // 10 if full else 1), counts


@pytest.mark.slow
def test_a_run_that_is_interrupted_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "experiments", "run", *SET, "--out", str(folder)]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )
    rounds, deadline = folder / "rounds.jsonl", time.monotonic() + 60
    while not (rounds.exists() and rounds.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    again = shlex.split(out.splitlines()[-1].partition("Go on with: ")[2])
    assert again == ["fednf", "run", *SET, "--out", str(folder), "--resume"]
    knobs = Experiment.from_flat(FLAT)
    found = run(knobs, Journal(folder), resume=True)
    assert found["model_sha256"] == run(knobs, Journal(tmp_path / "whole"))["model_sha256"]
    assert [line["round"] for line in Journal(folder).rounds()] == list(range(ROUNDS + 1))


# Imports once; then forks, for every n, a run that dies before its nth flush or rename, and another
# that resumes it. Ends with the first run that has fewer writes than n.
AT_EVERY_WRITE = """
import json, os, signal, sys
from pathlib import Path
from fl.reproducibility.determinism import prepare_process
from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run

knobs, root = Experiment.from_flat(json.loads(sys.argv[1])), Path(sys.argv[2])
prepare_process()


def child(folder, dies_at):
    if os.fork():
        return os.waitstatus_to_exitcode(os.wait()[1])
    writes = 0

    def deadly(call):
        def write(*args, **options):
            nonlocal writes
            writes += 1
            if writes == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return write

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    try:
        run(knobs, Journal(folder), resume=True)
    except BaseException as error:
        print(json.dumps({"died_at": dies_at, "error": repr(error)}), flush=True)
        os._exit(1)
    os._exit(0)


moment = int(sys.argv[3])
while child(root / str(moment), moment) == -signal.SIGKILL:
    if child(root / str(moment), None):
        break
    moment += 1
"""


@pytest.mark.slow
def test_a_run_may_die_at_every_single_write(tmp_path):
    """The commit's steps one by one: lines, checkpoint, model, result, each flush and rename."""
    flat = {**FLAT, "rounds": 1, "client.batch-size": 32}
    expected = run(Experiment.from_flat(flat), Journal(tmp_path / "undisturbed"))
    words = [sys.executable, "-c", AT_EVERY_WRITE, json.dumps(flat), str(tmp_path), "1"]
    out = subprocess.check_output(words, text=True, env=ENVIRONMENT, timeout=120)
    assert out == ""
    folders = list(tmp_path.glob("[0-9]*"))
    # 2 for experiment.json, 3 in the commit of round 0, which has no clients, 4 in the next, 2 for
    # the best model of round 0 and 2 for that of the next, 2 for the model, 2 for the result; and
    # the last folder's run, which nobody killed.
    assert expected["best_round"] == 1
    assert len(folders) >= 17 + 1
    best = Journal(tmp_path / "undisturbed").network(BEST)[0]
    for folder in folders:
        journal = Journal(folder)
        tensors, about = journal.network(BEST)
        assert (about["round"], model_sha256(tensors)) == (1, model_sha256(best)), folder.name
        assert journal.result()["model_sha256"] == expected["model_sha256"], folder.name
        assert [line["round"] for line in journal.rounds()] == [0, 1]
        assert [line["round"] for line in journal.clients()] == [1, 1]
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_run_may_die_while_it_writes_its_very_first_file(tmp_path):
    (tmp_path / ".experiment.json-a1b2c3d4.part").write_text("{")
    check(Journal(tmp_path), Experiment(), resume=True)
