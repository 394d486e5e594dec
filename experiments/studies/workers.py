"""Experiments side by side: worker processes that are started once and take job after job."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fl.config import Experiment
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.errors import in_words
from fl.reproducibility.locks import held
from fl.server.failures import EXPECTED, Failure
from fl.server.journal import ERRORS, Journal
from fl.server.opening import Held
from fl.server.watching.callback import Callback, Line
from fl.simulation import run
from fl.simulation.process_pool import start
from fl.simulation.worker_pool import WorkerPool


@dataclass(frozen=True)
class Job:
    """An experiment, and the folder that it is written to."""

    name: str
    experiment: Experiment
    folder: Path
    watchers: Sequence[Callable[[], Callback]] = ()
    """Each makes a callback of this run."""


class HeldBy(str):
    """Which process is at work on a job's folder: this is why the job was left, and no failure."""

    __slots__ = ()


JobCallback = Callable[[Job, Line], None]
"""Is called with a job and a line of its `rounds.jsonl` as soon as a round is finished."""


def work_through(
    jobs: Sequence[Job], workers: int, command: str, watch: JobCallback
) -> dict[str, str]:
    """Do jobs in worker processes, one torch thread each, and go on with those that were begun.

    A job that fails, or whose process dies, costs no other job anything.

    Args:
        jobs: what to do, in this order.
        workers: processes.
        command: how to repeat all of it; written into every run.
        watch: told of every finished round.

    Returns:
        Job name -> why it failed, in one line, or by whom it is held; empty where all went well.
    """
    prepare_process()
    todo, failed = deque(jobs), dict[str, str]()
    crew = [_Worker(command) for _ in range(min(workers, len(jobs)))]
    try:
        while True:
            for worker in crew:
                if worker.job is None and todo:
                    worker.take(todo.popleft())
            busy = {worker.pipe: worker for worker in crew if worker.job}
            if not busy:
                return failed
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # pyrefly: ignore
                if (reason := worker.hear(watch)) is not None:
                    failed[worker.last] = reason
            if todo:
                crew = [w if w.job or w.process.is_alive() else _Worker(command) for w in crew]
    finally:
        _end(crew)


def work_with(
    pool: WorkerPool | None, jobs: Sequence[Job], command: str, watch: JobCallback
) -> dict[str, str]:
    """Do jobs one after another, each by all of a pool, or in this process without one.

    As `work_through` otherwise.
    """
    outcomes = {job.name: _done(job, command, _Rounds(partial(watch, job)), pool) for job in jobs}
    return {name: reason for name, reason in outcomes.items() if reason is not None}


def work_beside(
    do: Callable[[Sequence[Job]], dict[str, str]],
    jobs: Sequence[Job],
    tell: Callable[[Mapping[str, HeldBy]], None],
) -> dict[str, str]:
    """Do jobs beside other processes that do some of them, and take up what those have done.

    A job that another process is at work on is left until all others are done. When the process is
    at its end, the job is done again: it is finished then, or goes on where the process left it.

    Args:
        do: does jobs, as `work_through`.
        jobs: what to do.
        tell: is told of jobs that are waited for, by name, each once.

    Returns:
        As `work_through`.
    """
    failed, todo, told = dict[str, str](), jobs, set[str]()
    while todo:
        found = do(todo)
        failed |= {name: reason for name, reason in found.items() if not isinstance(reason, HeldBy)}
        busy = {name: reason for name, reason in found.items() if isinstance(reason, HeldBy)}
        left = [job for job in jobs if job.name in busy]
        if new := {name: reason for name, reason in busy.items() if name not in told}:
            tell(new)
        told |= busy.keys()
        while left and all(_is_held(job.folder) for job in left):
            time.sleep(_PAUSE)
        todo = left
    return failed


_PAUSE = 0.5
"""Seconds between two looks at folders that others are at work on."""


def _is_held(folder: Path) -> bool:
    try:
        return held(folder)
    except OSError:  # it is gone again, and nobody holds it
        return False


class _Worker:
    """A process that does jobs, seen from the parent."""

    def __init__(self, command: str) -> None:
        self.process, self.pipe = start(_do_jobs, command, parent=True)
        self.job: Job | None = None
        self.last = ""

    def take(self, job: Job) -> None:
        """Begin a job."""
        self.job, self.last = job, job.name
        with suppress(OSError):  # a process that is gone is heard of by `hear`
            self.pipe.send(job)

    def hear(self, watch: JobCallback) -> str | None:
        """Take one message; returns why the job failed if it is about that."""
        assert self.job is not None
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            message = f"its process died (exit code {self.process.exitcode})"
        if isinstance(message, Line):
            watch(self.job, message)
            return None
        self.job = None
        return message


_PATIENCE = 10.0
"""Seconds for all idle processes to put away what they have, such as a compiler's processes."""


def _end(crew: Sequence[_Worker]) -> None:
    """End processes: idle ones by their own will, so that they leave nothing behind."""
    idle = [worker for worker in crew if worker.job is None]
    try:
        for worker in crew:
            if worker.job is not None:
                worker.process.kill()
        for worker in idle:
            with suppress(OSError):  # it is gone
                worker.pipe.send(None)
        until = time.monotonic() + _PATIENCE
        for worker in idle:
            worker.process.join(max(0.0, until - time.monotonic()))
    finally:
        for worker in crew:
            worker.process.kill()


def _do_jobs(pipe: Connection, command: str) -> None:
    """Do jobs until None comes or the parent is gone; sends round lines, then None or why not."""
    while (job := pipe.recv()) is not None:
        pipe.send(_done(job, command, _Rounds(pipe.send)))


class _Paused(BaseException):
    """A run has come as far as it should for now."""


class Until(Callback):
    """Pauses a run after a round, as if it were interrupted there; its checkpoint goes on.

    Args:
        last: the round.
    """

    def __init__(self, last: int) -> None:
        self.last = last

    def round_done(self, line: Line) -> None:
        """Pause the run, if it is there."""
        if line["round"] >= self.last:
            raise _Paused


class _Rounds(Callback):
    """Hands on the rounds of a run."""

    def __init__(self, hand_on: Callable[[Line], None]) -> None:
        self.hand_on = hand_on

    def round_done(self, line: Line) -> None:
        try:
            self.hand_on(line)
        except BrokenPipeError:  # the parent is gone, and nobody is left to be told
            raise SystemExit from None


def _done(job: Job, command: str, callback: Callback, pool: WorkerPool | None = None) -> str | None:
    """Do a job or go on with it; returns why it failed, in one line."""
    try:
        callbacks = [callback, *(make() for make in job.watchers)]
        told = {"command": command, "callbacks": callbacks}
        run(job.experiment, Journal(job.folder), resume=True, pool=pool, **told)
    except _Paused:
        return None
    except Held as error:
        return HeldBy(error.holder)
    except EXPECTED as error:
        return in_words(error)
    except Exception as error:
        failure = Failure.of(error)
        kept = job.folder / ERRORS
        return f"{failure.reason} ({failure.place}){f'; see {kept}' if kept.is_dir() else ''}"
    return None
