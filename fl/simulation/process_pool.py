"""Worker processes on this machine, with one thread each.

Requests and replies pass through shared memory, chunks and everything small through pipes.
`fl.simulation.workers.shared_memory` says how long its buffers live.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from fl.reproducibility.determinism import can_fork, prepare_process
from fl.simulation.pickling import Pieces, unpack
from fl.simulation.worker_pool import WorkerReply
from fl.simulation.workers.chunks import work
from fl.simulation.workers.evaluating import Told
from fl.simulation.workers.shared_memory import SharedBuffer, receive


def start(
    target: Callable[..., None], *arguments: object, parent: bool = False
) -> tuple[BaseProcess, Connection]:
    """Start a process that calls `target(pipe, *arguments)`; returns it and our end of the pipe.

    A `parent` may start processes of its own, and Python waits for it to end; others it ends.

    The process has one torch thread and ignores Ctrl-C, which its parent handles. It ends as soon
    as its parent does, even in the middle of its work: if it went on, it would hold the pipes and
    memory of a run that somebody may be resuming.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fresh interpreter reads it as it loads torch
    processes = multiprocessing.get_context("fork" if can_fork() else "spawn")
    ours, theirs = processes.Pipe()
    given = (target, theirs, *arguments)
    process = processes.Process(target=_begin, args=given, daemon=not parent)  # pyrefly: ignore
    # A child inherits the handler, so there is no moment in which Ctrl-C would end it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    return process, ours


def _begin(target: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    # A progress bar of the parent may have replaced them.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        target(pipe, *arguments)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class ProcessPool:
    """A pool of processes, see `fl.simulation.worker_pool.WorkerPool`; the caller closes it.

    Args:
        size: the number of processes.
    """

    runtime = "inline"  # as with one process: nothing but this program runs

    def __init__(self, size: int) -> None:
        self.size = size
        self._buffer, self._request = SharedBuffer(), _Request()
        self._workers = [_Worker() for _ in range(size)]
        self._busy: set[int] = set()

    def broadcast(self, request: Pieces) -> None:
        """Write a request to shared memory, once for all workers, and replace those that died."""
        self._request = _Request(request, self._buffer.write(request))
        for number, worker in enumerate(self._workers):
            if worker.process.is_alive():
                worker.broadcast(self._buffer, self._request)
            else:
                worker.close()
                self._replace(number)

    def submit(self, worker: int, chunk: bytes) -> None:
        """Send an idle worker a chunk."""
        self._busy.add(worker)
        self._workers[worker].submit(chunk)

    def since(self, worker: int) -> float | None:
        """Return when a busy worker began with its chunk; None while it is still starting."""
        one = self._workers[worker]
        return max(one.given, one.ready) if one.ready else None

    def wait(self, timeout: float | None = None) -> WorkerReply | None:
        """Wait until any busy worker is done or dead; one that is dead is replaced."""
        pipes = {self._workers[number].pipe: number for number in self._busy}
        for pipe in wait(list(pipes), timeout):
            number = pipes[pipe]  # pyrefly: ignore
            worker = self._workers[number]
            try:
                if not worker.ready:
                    worker.begun()
                    continue
                reply = worker.receive()
            except (EOFError, OSError):  # the pipe's other end is closed: the process has ended
                return WorkerReply(number, reason=self.end(number))
            self._busy.remove(number)
            return WorkerReply(number, reply)
        return None

    def end(self, worker: int) -> str:
        """End a busy worker and start another in its place; returns how it ended."""
        self._busy.remove(worker)
        reason = self._workers[worker].close()
        self._replace(worker)
        return reason

    def cancel(self) -> None:
        """End all busy workers; the next broadcast starts others in their places."""
        for number in self._busy:
            self._workers[number].close()
        self._busy.clear()

    def _replace(self, number: int) -> None:
        self._workers[number] = _Worker()
        if self._request.pieces:
            self._workers[number].broadcast(self._buffer, self._request)

    def processes(self) -> list[int]:
        """Return the process ids."""
        return [worker.process.pid or 0 for worker in self._workers]

    def close(self) -> None:
        """Kill the processes, which hold nothing that would be lost, and free the memory."""
        for worker in self._workers:
            worker.close()
        self._buffer.close()


@dataclass(frozen=True)
class _Request:
    """What is broadcast, and how much of it is in the pool's buffer."""

    pieces: Pieces = field(default_factory=list)
    written: int | None = None


class _Worker:
    """A worker process, as its parent sees it."""

    def __init__(self) -> None:
        self.process, self.pipe = start(_serve)
        self.ready = 0.0
        """When it said that it is there; 0 before."""
        self.given = 0.0
        """When it got its last chunk."""

    def broadcast(self, buffer: SharedBuffer, request: _Request) -> None:
        """Tell where the request is that the next chunks refer to."""
        with suppress(OSError):  # `ProcessPool.wait` finds out that the process has ended
            self.pipe.send(None)
            buffer.send(self.pipe, request.written, request.pieces)

    def submit(self, chunk: bytes) -> None:
        """Send a chunk."""
        self.given = time.monotonic()
        with suppress(OSError):
            self.pipe.send(chunk)

    def begun(self) -> None:
        """Take note that the process is there; it says so once."""
        self.pipe.recv()
        self.ready = time.monotonic()

    def receive(self) -> memoryview:
        """Return the replies to a chunk."""
        return receive(self.pipe)

    def close(self) -> str:
        """End the process; returns its exit code in words."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return f"exit code {self.process.exitcode}"


def _serve(pipe: Connection) -> None:
    """Train chunks as they come through a pipe: what a worker process does.

    Replies are written to two buffers in turn. The parent may still read the one of the last chunk
    while this process works on the next, but has read it before it submits the next but one.
    """
    prepare_process()
    told, buffers = Told(), [SharedBuffer(), SharedBuffer()]
    pipe.send(None)  # it is there, and a deadline begins
    while True:
        chunk = pipe.recv()
        if chunk is None:  # a broadcast
            with receive(pipe) as packed:
                told = unpack(packed)
        else:
            replies = work(chunk, told)
            buffers[0].send(pipe, buffers[0].write(replies), replies)
            del replies  # the networks would stay in memory while the next chunk is trained
            buffers.reverse()
