"""Worker processes of this machine, one thread each; requests and replies are in shared memory."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from flwr.app import RecordDict

from fl.reproducibility.determinism import settle
from fl.simulation.pickling import work
from fl.simulation.shared_memory import NO_ROOM, Reader, Slab, Told, send
from fl.simulation.worker_pool import Heard
from strategies import arrays as npy


def start(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
    """Start a process that calls `target(pipe, *arguments)`, and return it with our end.

    It has one torch thread, leaves Ctrl-C to its parent, and ends as soon as that is gone, even in
    mid-work: a worker that went on would be in the way of whoever resumes.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a fresh interpreter loads torch
    processes = multiprocessing.get_context("fork" if _can_fork() else "spawn")
    ours, theirs = processes.Pipe()
    resource_tracker.ensure_running()  # one for all: who comes later finds it
    given = (target, theirs, *arguments)
    process = processes.Process(target=_begin, args=given, daemon=True)  # pyrefly: ignore
    # A child inherits it from its first instruction on.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    return process, ours


def _can_fork() -> bool:
    """Return whether a copy of this process is one that works.

    It has all that is loaded here, at once and in the same memory, but only the thread that
    forks. Python's own threads are used to that; those of other libraries, such as pools for
    arithmetic, are waited for in vain, and a GPU's context can't be copied.
    """
    if sys.platform != "linux" or torch.cuda.is_initialized():
        return False
    pythons = {str(thread.native_id) for thread in threading.enumerate()}
    return pythons.issuperset(os.listdir("/proc/self/task"))


def _begin(target: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    # What a terminal's bars have put in their place belongs to the parent.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        target(pipe, *arguments)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Processes:
    """A team of processes, see `fl.simulation.worker_pool.Team`; to be closed.

    Args:
        size: how many.
    """

    runtime = "inline"  # they are ours, and end with us

    def __init__(self, size: int) -> None:
        self.size = size
        self._slab, self._told, self._request = Slab(), NO_ROOM, b""
        self._workers = [_Worker() for _ in range(size)]
        self._busy: set[int] = set()

    def tell(self, request: bytes) -> None:
        """Hand a request over to all."""
        self._told, self._request = self._slab.write([request]), request
        for number, worker in enumerate(self._workers):
            if worker.process.is_alive():
                worker.ask(self._told, request)
            else:
                worker.close()
                self._replace(number)

    def give(self, worker: int, parcel: bytes) -> None:
        """Hand a parcel over."""
        self._busy.add(worker)
        self._workers[worker].give(parcel)

    def hear(self) -> Heard:
        """Wait for a worker that is done; one that is dead is replaced."""
        pipes = {self._workers[number].pipe: number for number in self._busy}
        pipe = wait(list(pipes))[0]
        number = pipes[pipe]  # pyrefly: ignore
        self._busy.remove(number)
        worker = self._workers[number]
        try:
            return Heard(number, worker.read())
        except (EOFError, OSError):
            why = worker.close()
        self._replace(number)
        return Heard(number, why=why)

    def drop(self) -> None:
        """End whoever still works; the next request finds another in its place."""
        for number in self._busy:
            self._workers[number].close()
        self._busy.clear()

    def _replace(self, number: int) -> None:
        self._workers[number] = _Worker()
        if self._request:
            self._workers[number].ask(self._told, self._request)

    def processes(self) -> list[int]:
        """Return their process ids."""
        return [worker.process.pid or 0 for worker in self._workers]

    def close(self) -> None:
        """End them: they hold nothing that would be lost."""
        for worker in self._workers:
            worker.close()
        self._slab.close()


class _Worker:
    """A process, seen from the parent."""

    def __init__(self) -> None:
        self.process, self.pipe = start(_answer)
        self.reader = Reader()

    def ask(self, told: Told, request: bytes) -> None:
        """Say where the request is that parcels refer to from now on."""
        with suppress(OSError):  # a process that is gone is heard of by `hear`
            self.pipe.send(None)
            send(self.pipe, told, [request])

    def give(self, parcel: bytes) -> None:
        """Hand a parcel over."""
        with suppress(OSError):
            self.pipe.send(parcel)

    def read(self) -> memoryview:
        """Return what the process wrote last."""
        return self.reader.receive(self.pipe)

    def close(self) -> str:
        """End the process, and return how it ended."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.reader.take_over()
        return f"exit code {self.process.exitcode}"


def _answer(pipe: Connection) -> None:
    """Answer parcels, with two slabs in turn: the parent may still read the last when it gives."""
    settle()
    request, requests, slabs = RecordDict(), Reader(), [Slab(), Slab()]
    while True:
        parcel = pipe.recv()
        if parcel is None:
            with requests.receive(pipe) as told:
                request = pickle.loads(told)
        else:
            with npy.packed_into(slabs[0].place()):  # one copy of a network less
                pieces = work(parcel, request)
            send(pipe, slabs[0].write(pieces), pieces)
            slabs.reverse()
