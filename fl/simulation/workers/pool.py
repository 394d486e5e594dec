"""What a pool of workers is, whatever its workers are."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fl.simulation.pickling import Pieces


@dataclass(frozen=True)
class WorkerReply:
    """What became of a worker's chunk: its replies or, without them, the reason why it died."""

    worker: int
    replies: memoryview | None = None
    """What `work` returned, joined."""
    reason: str = ""
    """How the worker ended, in one line."""


@runtime_checkable
class WorkerPool(Protocol):
    """Workers, numbered from 0. One that dies is replaced by another of its number."""

    size: int
    runtime: str
    """The name of this kind of pool in `experiment.json`."""

    def broadcast(self, request: Pieces) -> None:
        """Give all workers, none of which is busy, what the next chunks have in common."""
        ...

    def submit(self, worker: int, chunk: bytes) -> None:
        """Give an idle worker a chunk, or a piece of an evaluation."""
        ...

    def since(self, worker: int) -> float | None:
        """Return when, by `time.monotonic`, a busy worker began; None while it is starting."""
        ...

    def wait(self, timeout: float | None = None) -> WorkerReply | None:
        """Wait until any busy worker is done or dead; it is idle then.

        The replies stay valid until this returns the next but one reply of the same worker.

        Returns:
            None after so many seconds without any, or where a worker has begun.
        """
        ...

    def end(self, worker: int) -> str:
        """End a busy worker, which another replaces; returns how it ended, in one line."""
        ...

    def cancel(self) -> None:
        """Drop all chunks that are at work; the workers that have them are ended."""
        ...
