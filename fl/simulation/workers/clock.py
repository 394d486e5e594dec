"""Clients that take long: a sign of life is given of them, and the deadline ends them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fl.simulation.grid import InlineGrid, Request

_QUIET = 60.0
"""Seconds without a reply after which a sign of life is given. Where an earlier client of the run
took longer, twice as long as that one: what is usual is no news."""
_log = logging.getLogger(__name__)
Since = Callable[[int], float | None]
"""Worker -> when it began, by the same clock; None while it is starting."""


class Clock:
    """Says which clients take long, and finds those whose deadline has passed.

    Args:
        deadline: `round.deadline`: seconds for each client of a worker's chunk; 0: none.
        where: the run, for what is said.
        quiet: seconds until the first sign of life.
        now: seconds of any clock that never goes back.
    """

    def __init__(
        self,
        deadline: float = 0.0,
        where: str = "",
        quiet: float = _QUIET,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline, self.where, self.quiet, self.now = deadline, where, quiet, now
        self.at_work: dict[int, Sequence[Request]] = {}
        """Worker -> its chunk."""
        self._told: dict[int, float] = {}
        """Worker -> the seconds after which its chunk is told next, of those that were told."""

    def wait(self, since: Since) -> float:
        """Return the seconds until something is to be said or ended, at least 0."""
        due = [self.quiet]
        for worker, chunk in self.at_work.items():
            if (began := since(worker)) is not None:
                due.append(began + self._told.get(worker, self.quiet) - self.now())
                if self.deadline:
                    due.append(began + self.deadline * len(chunk) - self.now())
        return max(min(due), 0.0)

    def late(self, since: Since) -> list[int]:
        """Return the workers whose deadline has passed, and tell of those that take long."""
        passed = []
        for worker, chunk in self.at_work.items():
            if (began := since(worker)) is None:
                continue
            self._tell(worker, began, chunk)
            if self.deadline and self.now() - began >= self.deadline * len(chunk):
                passed.append(worker)
        return passed

    def begin(self, worker: int, chunk: Sequence[Request]) -> None:
        """Take note that a worker has got a chunk."""
        self.at_work[worker] = chunk
        self._told.pop(worker, None)

    def end(self, worker: int, began: float | None = None) -> None:
        """Take note that a worker is done; of one that has replied, when it had begun."""
        self.at_work.pop(worker)
        if began is not None:
            self.usual(self.now() - began)

    def _tell(self, worker: int, began: float, chunk: Sequence[Request]) -> None:
        """Give a sign of life of a long chunk, and again each time that it took twice as long."""
        took = self.now() - began
        if took < self._told.get(worker, self.quiet):
            return
        self._told[worker] = 2 * took
        more = f", {len(chunk) - 3} more" if len(chunk) > 3 else ""
        names = ", ".join(str(_partition(request)) for request in chunk[:3])
        clients = f"client {names} has" if len(chunk) == 1 else f"clients {names}{more} have"
        until = f"{self.deadline * len(chunk):g} s" if self.deadline else "none"
        place = f"{self.where}: " if self.where else ""
        # A warning: it goes to the terminal, if nothing else is arranged.
        _log.warning("%s%s trained for %.0f s (round.deadline: %s)", place, clients, took, until)

    def usual(self, took: float) -> None:
        """Learn how long clients take that do reply."""
        self.quiet = max(self.quiet, 2 * took)


def _partition(request: Request) -> object:
    return request[1].node_config["partition-id"]


@contextmanager
def watched(grid: InlineGrid, clock: Clock, every: float = _QUIET / 2) -> Iterator[None]:
    """Give signs of life of clients that train in this process, from a thread beside it.

    Nothing ends such a client but the end of the process.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            if (at_work := grid.at_work) is not None:
                began, chunk = at_work
                if clock.at_work.get(0) is not chunk:
                    clock.begin(0, chunk)
                clock.usual(grid.longest)
                clock.late({0: began}.get)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
