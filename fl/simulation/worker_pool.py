"""Clients whose work is shared between workers, in processes or on the machines of a cluster."""

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, runtime_checkable

from flwr.app import Context, Error, Message, MessageType

from fl.client import app
from fl.data import share
from fl.fleet import work
from fl.messages import records
from fl.nn import settled
from fl.simulation import pickling
from fl.simulation.engine import Choice, longest_first
from fl.simulation.grid import Question, SimulatedGrid, called
from fl.simulation.pickling import Answer

_TRIES = 2
"""How many workers may die of a parcel."""


@dataclass(frozen=True)
class Heard:
    """News of a worker: it has answered its parcel or, without answers, died of it."""

    worker: int
    answers: memoryview | None = None
    why: str = ""
    """What became of it, in one line."""


@runtime_checkable
class Team(Protocol):
    """Workers, numbered from 0. One that dies is replaced by another of its number."""

    size: int
    runtime: str
    """What `experiment.json` calls it."""

    def tell(self, request: bytes) -> None:
        """Give all workers the request that parcels refer to; none is busy, none is dead after."""
        ...

    def give(self, worker: int, parcel: bytes) -> None:
        """Give an idle worker a parcel."""
        ...

    def hear(self) -> Heard:
        """Wait for news of any busy worker; answers stay valid until its next but one."""
        ...

    def drop(self) -> None:
        """Forget all parcels that are not answered, whatever it takes."""
        ...


class TeamGrid(SimulatedGrid):
    """Replies come as they are ready; how many wait in memory depends on room, not on clients.

    Args:
        choice: how clients are trained.
        team: who trains them.
    """

    def __init__(self, choice: Choice, team: Team) -> None:
        super().__init__(choice.knobs)
        self.knobs, self.at_once = settled(choice.knobs), choice.at_once
        self.lanes = choice.knobs.engine == "cohort"
        self.team = team

    def answers(self, questions: Sequence[Question]) -> Iterator[Message]:
        """Yield a reply per request, in the order in which they are ready."""
        if not questions or questions[0][0].metadata.message_type == records.WHO_ARE_YOU:
            yield from called(app.app, questions)  # sooner answered than handed over
            return
        with self._at_work(questions) as replies:
            yield from replies

    @contextmanager
    def at_work(self, messages: Iterable[Message]) -> Iterator[Iterator[Message]]:
        """Let workers begin, and give what `send_and_receive` gives."""
        with self._at_work(self._asked(messages)) as replies:
            yield self._heard(replies)

    @contextmanager
    def _at_work(self, questions: Sequence[Question]) -> Iterator[Iterator[Message]]:
        dealt, ahead = self._dealt(questions)
        waiting, busy = list(range(len(dealt))), dict[int, int]()
        self.team.tell(pickle.dumps(questions[0][0].content, pickle.HIGHEST_PROTOCOL))
        try:
            self._hand_out(dealt, ahead, waiting, busy)
            yield self._shared(dealt, ahead, waiting, busy)
        finally:
            self.team.drop()

    def _dealt(self, questions: Sequence[Question]) -> tuple[list[Sequence[Question]], int]:
        """Return parcels, and how many may be begun before the oldest of them is done.

        Whoever has most to do is begun first, so that no worker is left alone at the end: among
        all clients, where memory holds all of their replies.
        """
        steps = [self._steps(*question) for question in questions]
        size, at_once = self.team.size, max(self.at_once, self.team.size)
        parts: list[list[int]] = []
        for begin in range(0, len(questions), at_once):
            window = range(begin, min(begin + at_once, len(questions)))
            hands = size if self.lanes else len(window)
            dealt = longest_first([steps[place] for place in window], hands)
            parts += [[window[place] for place in part] for part in dealt if part]
        ahead = len(parts) if at_once >= len(questions) else 2 * size
        return [[questions[place] for place in part] for part in parts], ahead

    def _shared(
        self,
        dealt: list[Sequence[Question]],
        ahead: int,
        waiting: list[int],
        busy: dict[int, int],
    ) -> Iterator[Message]:
        """Let workers answer parcels, each in turn as a worker is free."""
        died, answered, why = Counter[int](), False, ""
        while busy:
            heard, lost = self.team.hear(), None
            number = busy.pop(heard.worker)
            if heard.answers is None:
                lost, why = self._again(dealt, number, waiting, died), heard.why
            self._hand_out(dealt, ahead, waiting, busy)  # before we read: nobody has to wait
            if heard.answers is not None:
                yield from self._read(dealt[number], heard.answers)
                answered = True
            elif lost:
                yield _unanswered(lost, why)
        if not answered:
            raise RuntimeError(f"no worker lives long enough to answer: {why}")

    def _hand_out(
        self,
        dealt: Sequence[Sequence[Question]],
        ahead: int,
        waiting: list[int],
        busy: dict[int, int],
    ) -> None:
        """Give idle workers what is next."""
        request = dealt[0][0][0].content
        for worker in range(self.team.size):
            if worker not in busy and waiting:
                oldest = min([waiting[0], *busy.values()])
                if waiting[0] < oldest + ahead:
                    busy[worker] = heappop(waiting)
                    self.team.give(worker, b"".join(pickling.pack(dealt[busy[worker]], request)))

    def _again(
        self,
        dealt: list[Sequence[Question]],
        number: int,
        waiting: list[int],
        died: Counter[int],
    ) -> Question | None:
        """Let a parcel of which a worker died be done again, at last client by client.

        Returns the question of the client whose fault it then is.
        """
        died[number] += 1
        if died[number] < _TRIES:
            heappush(waiting, number)
        elif len(dealt[number]) == 1:
            return dealt[number][0]
        else:
            for question in dealt[number]:
                heappush(waiting, len(dealt))
                died[len(dealt)] = _TRIES - 1
                dealt.append([question])
        return None

    def _read(self, questions: Sequence[Question], answers: memoryview) -> Iterator[Message]:
        with answers:  # let go of as soon as it is read: its memory may be gone then
            found: list[Answer] | str = pickling.unpack(answers, questions[0][0].content)
        if isinstance(found, str):
            raise RuntimeError(f"in a worker: {found}")
        for (_, context), (reply, state) in zip(questions, found, strict=True):
            context.state = state
            yield reply

    def _steps(self, message: Message, context: Context) -> int:
        if message.metadata.message_type != MessageType.TRAIN:
            return 1
        partition = int(context.node_config["partition-id"])
        images = len(share(context.node_config, self.knobs).train)
        return work(self.knobs, partition, records.read_round(message.content), images).steps(
            images
        )


def _unanswered(question: Question, why: str) -> Message:
    return Message(Error(0, f"{_TRIES} workers died of it: {why}"), reply_to=question[0])
