"""The clients of a round, trained by a pool of workers: processes, or actors on a cluster.

`PoolGrid` cuts a round's requests into chunks. A worker trains one at a time (`work`). Where it has
none, it evaluates pieces of the round before (`fl.simulation.pipeline`). What all requests of a
round share, the global network and the configuration, is broadcast to all workers once; a chunk
holds the rest. `Dispatch` decides which worker gets which chunk, on which no result depends.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush

from flwr.app import Context, Error, Message, MessageType, RecordDict

from fl.client import task
from fl.data import share
from fl.fleet import work
from fl.messages import records
from fl.nn import resolve_auto
from fl.reproducibility.provenance import cores
from fl.server.failures import RunFailed
from fl.simulation.engine import Choice
from fl.simulation.grid import Request, SimulatedGrid
from fl.simulation.pickling import pack
from fl.simulation.pipeline import Pipeline
from fl.simulation.schedule import longest_first
from fl.simulation.workers.chunks import Chunk, pack_chunk, read_parts, read_replies
from fl.simulation.workers.clock import Clock
from fl.simulation.workers.evaluating import Told, told_of
from fl.simulation.workers.pool import WorkerPool as WorkerPool
from fl.simulation.workers.pool import WorkerReply as WorkerReply
from fl.simulation.workers.profile import Profile
from fl.tasks.metrics import Part
from fl.training.loop import Evaluation

_TRIES = 2
"""How many workers may die while they train a chunk, before it is cut up or its client refused."""


class PoolGrid(SimulatedGrid):
    """A grid whose clients are trained by a pool; replies come in the order in which they finish.

    How many replies wait in memory is bounded by `choice.at_once`, not by the number of clients.

    Args:
        choice: how clients are trained.
        pool: the workers.
        clock: says who takes long, and too long.
        profile: hears when workers are at what.
    """

    def __init__(
        self,
        choice: Choice,
        pool: WorkerPool,
        clock: Clock | None = None,
        profile: Profile | None = None,
    ) -> None:
        super().__init__(choice.knobs, profile)
        if profile:
            profile.workers = pool.size
        self.knobs, self.at_once = resolve_auto(choice.knobs), choice.at_once
        self.lanes = choice.knobs.engine == "vectorized"
        self.pool, self.pipeline = pool, Pipeline(self.evaluating, spare=pool.size < cores())
        self.clock = clock or Clock(choice.knobs.round.deadline)
        self._last: Dispatch | None = None
        """What workers may still be busy with: pieces of an evaluation."""

    def answers(self, requests: Sequence[Request]) -> Iterator[Message]:
        """Yield a reply per request. If the caller stops early, the pool's work is cancelled."""
        if not requests:
            return
        if requests[0][0].metadata.message_type == records.WHO_ARE_YOU:
            yield from task.answer(*zip(*requests, strict=True))  # sooner than a worker has it
            return
        self._end_last()
        chunks, ahead = self._chunks(requests)
        begun, shared = time.monotonic(), requests[0][0].content
        with self._dispatch(shared, chunks, ahead) as dispatch:
            yield from dispatch.replies()
        self.pipeline.take_time(time.monotonic() - begun)

    def when_busy(self, evaluation: Evaluation, finish: Callable[[Iterable[Part]], None]) -> None:
        """Put off what finishes a round until workers have evaluated its network."""
        self.flush()
        self.pipeline.begin(evaluation, finish, self.pool.size)

    def flush(self) -> None:
        """Do what was put off."""
        self._end_last()
        if self.pipeline.is_small:
            self.pipeline.flush()
        elif self.pipeline.evaluation:
            with self._dispatch(RecordDict()):
                pass
            self._end_last()

    @contextmanager
    def _dispatch(
        self, shared: RecordDict, chunks: Sequence[Chunk] = (), ahead: int = 0
    ) -> Iterator["Dispatch"]:
        """Hand chunks out, and pieces behind them; without its end the pool's work is cancelled."""
        small = self.pipeline.is_small
        evaluation = None if small else self.pipeline.evaluation
        dispatch = Dispatch(self, chunks, ahead)
        try:
            dispatch.start(told_of(shared, evaluation, self._run_config, bool(self.profile)))
            if small:
                self.pipeline.flush()  # every worker is busy, and this process is free
            yield dispatch
            self._last = dispatch
        finally:
            if self._last is not dispatch:
                self.pool.cancel()
                dispatch.give_back()

    def _end_last(self) -> None:
        """Wait until workers have evaluated all pieces of what they were given last."""
        last, self._last = self._last, None
        if last:
            try:
                last.evaluate()
            finally:
                self.pool.cancel()
                last.give_back()

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
        """Return what a request takes: steps or, where nothing is trained, images."""
        partition = int(context.node_config["partition-id"])
        images = len(share(context.node_config, self.knobs).train)
        if message.metadata.message_type != MessageType.TRAIN:
            return images
        number = records.read_round(message.content)
        return work(self.knobs, partition, number, images).steps(images)


class Dispatch:
    """Hands the chunks of one round to the workers of a pool, and collects their replies.

    A chunk whose worker dies is handed out once more. If that worker dies, too, the chunk is cut
    into its clients, each of which has one try left, alone. A client whose worker dies then is
    refused with the reason. So a client that kills its worker costs nobody else anything.
    If a deadline passes, a chunk is cut up at once, and a single client refused at once.

    Workers that get no chunk evaluate pieces of the round before. A piece whose worker dies or
    fails is evaluated by this process.

    Args:
        grid: its pool's workers, which are idle, its clock, its pipeline and its profile.
        chunks: they are begun in this order.
        ahead: how many chunks may be begun from the oldest on that is not done. The server takes
            replies in the order of requests, so the others' replies wait for it in memory.
    """

    def __init__(self, grid: PoolGrid, chunks: Sequence[Chunk], ahead: int) -> None:
        self.pool, self.clock, self.pipeline = grid.pool, grid.clock, grid.pipeline
        self.profile, self.chunks, self.ahead = grid.profile, list(chunks), ahead
        self.told, self.waiting = Told(), list(range(len(chunks)))
        """The numbers of chunks that nobody has, as a heap: the lowest comes first."""
        self.clock.at_work.clear()
        self.busy: dict[int, int] = {}
        """Worker -> the number of the chunk that it has."""
        self.evaluating: dict[int, range] = {}
        """Worker -> the piece that it has."""
        self.deaths = Counter[int]()
        """The number of a chunk -> how many workers have died of it."""

    def start(self, told: Told) -> None:
        """Broadcast what chunks and pieces share, and give every worker its first."""
        self.told = told
        self.pool.broadcast(pack(told))
        self._hand_out()

    def replies(self) -> Iterator[Message]:
        """Yield a reply per request, as they come, and update the clients' contexts.

        Raises:
            RunFailed: all workers have died, or one met an error that is not of one client.
        """
        any_replied, reason = False, ""
        while self.busy or self.waiting:
            if (reply := self._wait()) is None:
                for late in self._late():
                    any_replied = True
                    yield late
                self._help()
                continue
            self.clock.end(reply.worker, self.pool.since(reply.worker))
            number, refused = self.busy.pop(reply.worker), None
            if reply.replies is None:
                refused, reason = self._retry(number), reply.reason
            self._hand_out()  # before the reply is read, so that the worker need not wait for that
            if reply.replies is not None:
                yield from read_replies(self.chunks[number], reply, self.profile)
                any_replied = True
            elif refused:
                error = Error(0, f"{_TRIES} workers died while they trained it: {reason}")
                yield Message(error, reply_to=refused[0])
        if not any_replied:
            raise RunFailed(f"no worker lived long enough to reply: {reason}")

    def evaluate(self) -> None:
        """Wait until all pieces are evaluated; no chunk is at work."""
        while self.evaluating:
            if self._wait() is None:
                self._help()

    def give_back(self) -> None:
        """Let pieces wait again that workers were cancelled at."""
        self.pipeline.waiting.extendleft(self.evaluating.values())
        self.evaluating.clear()

    def _wait(self) -> WorkerReply | None:
        """Wait for the reply to a chunk, and take what pieces come to meanwhile.

        Returns:
            None where something else is to be done and no worker has a reply.
        """
        while self.busy or self.evaluating:
            seconds = 0.0 if self._helps else self.clock.wait(self.pool.since)
            reply = self.pool.wait(seconds)
            if reply is None or (piece := self.evaluating.pop(reply.worker, None)) is None:
                return reply
            self._hand_out()
            self.pipeline.take(piece, read_parts(reply, self.profile))
        return None

    @property
    def _helps(self) -> bool:
        """Whether there are pieces that this process has a core for."""
        return self.pipeline.spare and self.told.model is not None and bool(self.pipeline.waiting)

    def _help(self) -> None:
        """Evaluate a piece in this process, where it has a core for that: a small one, the last."""
        if self._helps:
            self.pipeline.take(self.pipeline.waiting.pop(), None)

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
        """Give idle workers the next chunks, as far ahead as is allowed, and else pieces."""
        pieces = self.pipeline.waiting if self.told.model is not None else ()
        for worker in range(self.pool.size):
            if worker in self.busy or worker in self.evaluating:
                continue
            oldest = min([*self.waiting[:1], *self.busy.values()], default=0)
            due = bool(self.waiting) and self.waiting[0] < oldest + self.ahead
            if pieces and (self.pipeline.first or not due):
                piece = self.evaluating[worker] = pieces.popleft()
                self.pool.submit(worker, b"".join(pack(piece)))
            elif due:
                number = self.busy[worker] = heappop(self.waiting)
                self.clock.begin(worker, self.chunks[number])
                self.pool.submit(worker, pack_chunk(self.chunks[number], self.told.shared))

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
