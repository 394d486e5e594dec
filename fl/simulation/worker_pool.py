"""The clients of a round, trained by a pool of workers: processes, or actors on a cluster.

`PoolGrid` cuts a round's requests into chunks. A worker trains one at a time (`train_chunk`).
What all requests of a round share, the global network and the configuration, is broadcast to all
workers once; a chunk holds the rest. `Dispatch` decides which worker gets which chunk and when.
The order in which replies come back has no influence on results, since the server sorts them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, runtime_checkable

from flwr.app import Context, Error, Message, MessageType

from fl.client import task
from fl.data import share
from fl.fleet import work
from fl.messages import records
from fl.nn import resolve_auto
from fl.server.failures import RunFailed
from fl.simulation.engine import Choice
from fl.simulation.grid import Request, SimulatedGrid
from fl.simulation.pickling import Pieces, pack
from fl.simulation.pipeline import Pipeline
from fl.simulation.schedule import longest_first
from fl.simulation.workers.chunks import Chunk, pack_chunk, read_replies
from fl.simulation.workers.clock import Clock

_TRIES = 2
"""How many workers may die while they train a chunk, before it is cut up or its client refused."""


@dataclass(frozen=True)
class WorkerReply:
    """What became of a worker's chunk: its replies or, without them, the reason why it died."""

    worker: int
    replies: memoryview | None = None
    """What `train_chunk` returned, as one piece."""
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
        """Give an idle worker a chunk."""
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


class PoolGrid(SimulatedGrid):
    """A grid whose clients are trained by a pool; replies come in the order in which they finish.

    How many replies wait in memory is bounded by `choice.at_once`, not by the number of clients.

    Args:
        choice: how clients are trained.
        pool: the workers.
        clock: says who takes long, and too long.
    """

    def __init__(self, choice: Choice, pool: WorkerPool, clock: Clock | None = None) -> None:
        super().__init__(choice.knobs)
        self.knobs, self.at_once = resolve_auto(choice.knobs), choice.at_once
        self.lanes = choice.knobs.engine == "vectorized"
        self.pool, self.pipeline = pool, Pipeline()
        self.clock = clock or Clock(choice.knobs.round.deadline)

    def answers(self, requests: Sequence[Request]) -> Iterator[Message]:
        """Yield a reply per request. If the caller stops early, the pool's work is cancelled."""
        if not requests:
            return
        if requests[0][0].metadata.message_type == records.WHO_ARE_YOU:
            # Takes less time here than the way to a worker.
            yield from task.answer(*zip(*requests, strict=True))
            return
        dispatch = Dispatch(self.pool, *self._chunks(requests), self.clock)
        try:
            dispatch.start()
            self.pipeline.flush()  # every worker is busy, and this process is free for other work
            yield from dispatch.replies()
        finally:
            self.pool.cancel()

    def when_busy(self, finish: Callable[[], None]) -> None:
        """Put what finishes a round off until workers are at the next."""
        self.pipeline.when_busy(finish)

    def flush(self) -> None:
        """Do what was put off."""
        self.pipeline.flush()

    def _chunks(self, requests: Sequence[Request]) -> tuple[list[Chunk], int]:
        """Cut requests into chunks, and return how far workers may be ahead, see `Dispatch`.

        Clients with most steps come first, so that no worker is left alone at the end with a long
        one. Where memory can't hold the replies of all clients, this order holds only within
        windows of as many as it can.
        """
        steps = [self._steps(*request) for request in requests]
        size, at_once = self.pool.size, max(self.at_once, self.pool.size)
        chunks: list[Chunk] = []
        for begin in range(0, len(requests), at_once):
            window = range(begin, min(begin + at_once, len(requests)))
            # Lanes want all of a worker's clients at once. Without lanes each is a chunk.
            parts = size if self.lanes else len(window)
            dealt = longest_first([steps[place] for place in window], parts)
            chunks += [[requests[window[place]] for place in part] for part in dealt if part]
        return chunks, len(chunks) if at_once >= len(requests) else 2 * size

    def _steps(self, message: Message, context: Context) -> int:
        if message.metadata.message_type != MessageType.TRAIN:
            return 1
        partition = int(context.node_config["partition-id"])
        images = len(share(context.node_config, self.knobs).train)
        number = records.read_round(message.content)
        return work(self.knobs, partition, number, images).steps(images)


class Dispatch:
    """Hands the chunks of one round to the workers of a pool, and collects their replies.

    A chunk whose worker dies is handed out once more. If that worker dies, too, the chunk is cut
    into its clients, each of which has one try left, alone. A client whose worker dies then is
    refused with the reason. So a client that kills its worker costs nobody else anything.
    If a deadline passes, a chunk is cut up at once, and a single client refused at once.

    Args:
        pool: the workers; all are idle.
        chunks: at least one. They are begun in this order.
        ahead: how many chunks may be begun from the oldest on that is not done. The server takes
            replies in the order of requests, so the others' replies wait for it in memory.
        clock: says whose deadline has passed.
    """

    def __init__(self, pool: WorkerPool, chunks: Sequence[Chunk], ahead: int, clock: Clock) -> None:
        self.pool, self.chunks, self.ahead, self.clock = pool, list(chunks), ahead, clock
        self.clock.at_work.clear()
        self.waiting = list(range(len(chunks)))
        """The numbers of chunks that nobody has, as a heap: the lowest comes first."""
        self.busy: dict[int, int] = {}
        """Worker -> the number of the chunk that it has."""
        self.deaths = Counter[int]()
        """The number of a chunk -> how many workers have died of it."""
        self.shared = chunks[0][0][0].content
        """What is broadcast: the content of the first request, and nearly always of all."""

    def start(self) -> None:
        """Broadcast what chunks share, and give every worker its first chunk."""
        self.pool.broadcast(pack(self.shared))
        self._hand_out()

    def replies(self) -> Iterator[Message]:
        """Yield a reply per request, as they come, and update the clients' contexts.

        Raises:
            RunFailed: all workers have died, or one met an error that is not of one client.
        """
        any_replied, reason = False, ""
        while self.busy:
            reply = self.pool.wait(self.clock.wait(self.pool.since))
            if reply is None:
                for late in self._late():
                    any_replied = True
                    yield late
                continue
            self.clock.end(reply.worker, self.pool.since(reply.worker))
            number, refused = self.busy.pop(reply.worker), None
            if reply.replies is None:
                refused, reason = self._retry(number), reply.reason
            self._hand_out()  # before the reply is read, so that the worker need not wait for that
            if reply.replies is not None:
                yield from read_replies(self.chunks[number], reply.replies)
                any_replied = True
            elif refused:
                error = Error(0, f"{_TRIES} workers died while they trained it: {reason}")
                yield Message(error, reply_to=refused[0])
        if not any_replied:
            raise RunFailed(f"no worker lived long enough to reply: {reason}")

    def _late(self) -> Iterator[Message]:
        """End workers whose deadline has passed; yields the refusals of those with one client."""
        for worker in self.clock.late(self.pool.since):
            self.pool.end(worker)
            self.clock.end(worker)
            number = self.busy.pop(worker)
            self.deaths[number] = _TRIES - 1
            if (refused := self._retry(number)) is not None:
                reason = f"deadline of {self.clock.deadline:g} s passed"
                yield records.failure(refused[0], records.FAULT, reason)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give idle workers the next chunks, as far ahead as is allowed."""
        for worker in range(self.pool.size):
            if worker not in self.busy and self.waiting:
                oldest = min([self.waiting[0], *self.busy.values()])
                if self.waiting[0] < oldest + self.ahead:
                    number = self.busy[worker] = heappop(self.waiting)
                    self.clock.begin(worker, self.chunks[number])
                    self.pool.submit(worker, pack_chunk(self.chunks[number], self.shared))

    def _retry(self, number: int) -> Request | None:
        """Put a chunk whose worker died back; returns its only request if it has no try left."""
        chunk = self.chunks[number]
        self.deaths[number] += 1
        if self.deaths[number] < _TRIES:
            heappush(self.waiting, number)
        elif len(chunk) == 1:
            return chunk[0]
        else:
            for request in chunk:
                alone = len(self.chunks)
                self.chunks.append([request])
                self.deaths[alone] = _TRIES - 1
                heappush(self.waiting, alone)
        return None
