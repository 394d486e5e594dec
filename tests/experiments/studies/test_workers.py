import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.studies import workers
from experiments.studies.workers import Job, work_beside, work_through, work_with
from fl.config import Experiment
from fl.reproducibility.locks import locked, sign
from fl.server.journal import Journal
from fl.simulation import run

QUICK = {
    "network.depth": 3,
    "network.width": 4,
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 2,
    "client.batch-size": 32,
    "rounds": 3,
}
LONG = {"rounds": 100_000}
"""So many rounds that nobody waits for the end."""


def experiment(**flat) -> Experiment:
    return Experiment.from_flat({**QUICK, **flat})


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits only for its parent to notice."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def children(pid: int) -> list[int]:
    """Return the worker processes of a process, without multiprocessing's own helper."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    words = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child in found if b"resource_tracker" not in words[child]]


def oldest() -> BaseProcess:
    """Return the worker that was started first; their names are numbered."""
    return min(active_children(), key=lambda worker: int(worker.name.rpartition("-")[2]))


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """One worker killed in mid-job, one folder that holds something else, and two good jobs."""
    root = tmp_path_factory.mktemp("work")
    jobs = [
        Job("killed", experiment(**LONG), root / "killed"),
        Job("one", experiment(seed=1), root / "one"),
        Job("occupied", experiment(), root / "occupied"),
        Job("two", experiment(seed=2), root / "two"),
    ]
    (root / "occupied").mkdir()
    (root / "occupied" / "letter.txt").write_text("dear")
    seen: list[tuple[str, int]] = []

    def watch(job: Job, line: dict) -> None:
        seen.append((job.name, line["round"]))
        if seen[-1] == ("killed", 2):
            oldest().kill()  # the first job was given to the first worker

    failed = work_through(jobs, 2, "fednf study mine", watch)
    return SimpleNamespace(jobs=jobs, seen=seen, failed=failed, root=root)


def test_a_worker_that_is_killed_costs_its_job_and_no_other(worked):
    assert worked.failed["killed"] == "its process died (exit code -9)"
    assert set(worked.failed) == {"killed", "occupied"}
    assert Journal(worked.root / "killed").checkpoint().round >= 2
    assert Journal(worked.root / "killed").result() is None


def test_a_job_that_fails_says_why_in_one_line_and_costs_no_other(worked):
    reason = worked.failed["occupied"]
    assert reason.startswith("ConfigError: ")
    assert "holds other files" in reason
    assert len(reason.splitlines()) == 1
    assert [path.name for path in (worked.root / "occupied").iterdir()] == ["letter.txt"]


def test_workers_compute_what_this_process_computes(worked, tmp_path):
    for job in worked.jobs[1::2]:
        journal = Journal(job.folder)
        here = run(job.experiment, Journal(tmp_path / job.name))
        assert journal.result()["model_sha256"] == here["model_sha256"]
        assert journal.header()["command"] == "fednf study mine"


def test_the_watch_sees_every_round_of_every_job_in_order(worked):
    for name in ("one", "two"):
        assert [number for job, number in worked.seen if job == name] == [0, 1, 2, 3]


def test_done_work_is_skipped_and_no_process_is_left(worked):
    """The second time, the finished jobs' lines are shown, and their models are not touched."""
    good = worked.jobs[1::2]
    before = [(job.folder / "model.safetensors").stat() for job in good]
    seen: list[tuple[str, int]] = []
    failed = work_through(
        [*good, worked.jobs[2]],
        1,
        "again",
        lambda job, line: seen.append((job.name, line["round"])),
    )
    assert set(failed) == {"occupied"}
    assert [(job.folder / "model.safetensors").stat() for job in good] == before
    assert seen == [(job.name, number) for job in good for number in range(4)]
    deadline = time.monotonic() + 10
    while active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert active_children() == []


def test_a_job_that_another_process_is_at_work_on_is_waited_for_and_taken_up(tmp_path):
    """Both are done in the end: one at once, the other when its folder is free."""
    jobs = [Job(name, experiment(seed=n), tmp_path / name) for n, name in enumerate(("a", "b"))]
    done: list[str] = []

    def watch(job: Job, line: dict) -> None:
        done.append(job.name)

    jobs[0].folder.mkdir()
    with ExitStack() as lock:
        lock.enter_context(locked(jobs[0].folder))
        sign(jobs[0].folder)

        def tell(busy: dict) -> None:
            assert set(done) == {"b"}
            assert busy == {"a": f"process {os.getpid()} of {platform.node()}"}
            lock.close()

        do = partial(work_with, None, command="x", watch=watch)  # in this process
        assert work_beside(do, jobs, tell) == {}
    assert [Journal(job.folder).result()["rounds"] for job in jobs] == [3, 3]
    assert [path.name for path in jobs[0].folder.iterdir() if path.name.startswith(".")] == []


STUDY = """
from fl import Experiment, Study, grid
BASE = Experiment.from_flat({flat!r})
STUDY = Study("two", "Why?", grid(BASE, [{{"seed": seed}} for seed in (1, 2)]))
"""


@pytest.mark.slow
def test_two_studies_in_one_folder_both_end_well(tmp_path):
    """Each does what the other is not at, waits for the rest, and reports all of it."""
    (tmp_path / "mine.py").write_text(STUDY.format(flat={**QUICK, "rounds": 8}))
    words = [sys.executable, "-m", "experiments", "study", "mine.py", "--out", "two"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    both = [
        subprocess.Popen(
            [*words, "--jobs", "1", "--json"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for text in said:
        report = json.loads(text.splitlines()[-1])
        assert (report["runs"], report["failed"]) == (2, {})
    assert "is held by process " in "".join(said)
    assert len(list((tmp_path / "two").glob("*/result.json"))) == 2


def test_no_work_is_done_at_once():
    assert work_through([], 4, "nothing", lambda job, line: None) == {}


def test_a_worker_that_hangs_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    crew = [workers._Worker("x") for _ in range(2)]
    os.kill(crew[0].process.pid, signal.SIGSTOP)
    crew[1].process.kill()
    crew[1].process.join()
    begun = time.monotonic()
    workers._end(crew)
    assert time.monotonic() - begun < 2
    for worker in crew:
        worker.process.join(5)
        assert not worker.process.is_alive()


LOCKS = """
import multiprocessing
from pathlib import Path
import fl
from experiments.studies.workers import Job, work_through
kept = []
class Locking(fl.Callback):
    def __init__(self):
        kept.append(multiprocessing.get_context("spawn").Lock())  # as a compiler's pool does
if __name__ == "__main__":
    job = Job("one", fl.Experiment.from_flat({flat!r}), Path({folder!r}), [Locking])
    assert work_through([job], 1, "x", lambda job, line: None) == {{}}
"""


@pytest.mark.slow
def test_workers_leave_nothing_behind(tmp_path):
    """A worker that is killed leaves locks, of which Python warns when the command ends."""
    script = tmp_path / "locks.py"
    script.write_text(LOCKS.format(flat={**QUICK, "rounds": 1}, folder=str(tmp_path / "run")))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PARENT = """
import sys
from pathlib import Path
from experiments.studies.workers import Job, work_through
from fl.config import Experiment
if __name__ == "__main__":
    job = Job("long", Experiment.from_flat({flat!r}), Path({folder!r}))
    work_through([job], 1, "x", lambda job, line: print(line["round"], flush=True))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in Linux's /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_workers_end_with_their_parent_even_in_mid_round(tmp_path, kill):
    """A worker that went on could write into a folder that the next command has resumed."""
    flat = {**QUICK, "network.depth": 24, "network.width": 32, "client.batch-size": 1}
    flat |= {"client.epochs": 10_000, **LONG}  # after round 0, one round without end
    (tmp_path / "parent.py").write_text(PARENT.format(flat=flat, folder=str(tmp_path / "run")))
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    guard = threading.Timer(60, parent.kill)
    guard.start()
    with parent:
        assert parent.stdout.readline() == b"0\n"
        (worker,) = children(parent.pid)
        parent.send_signal(kill)
    guard.cancel()
    deadline = time.monotonic() + 5
    while not ended(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphan = not ended(worker)
    if orphan:
        os.kill(worker, signal.SIGKILL)
    assert not orphan
