"""From when to when clients were at work, which `fednf run --profile` shows."""

import time
from typing import Any, NamedTuple

from flwr.app import Message

from fl.client.method import Begun
from fl.training.parameters import FlatNetwork
from fl.training.task import Outcome


class Span(NamedTuple):
    """What was done from when to when, by `time.monotonic` of one machine."""

    what: str
    """`client`, where it is a client's; of a process `evaluate`, or the type of what it answers."""
    begun: float
    ended: float
    round: int | None = None
    """Of a client."""
    partition: int | None = None
    """A client's."""


class NotedTask:
    """A client's round, as `fl.training.task.Task`, of which is noted when it began and ended.

    Args:
        task: the round.
        path: the round's number, and the client's partition id.
        spans: where that is noted.
    """

    def __init__(self, task: Any, path: tuple[int, int], spans: list[Span]) -> None:
        self.task, self.path, self.spans = task, path, spans
        self.begun = 0.0

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        return self.task.steps

    def begin(self, network: FlatNetwork) -> Begun:
        """Begin."""
        self.begun = self.begun or time.monotonic()  # again, if a pass failed: it trains alone
        return self.task.begin(network)

    def end(self, network: FlatNetwork, begun: Begun, outcome: Outcome) -> Message:
        """Reply with the outcome."""
        reply = self.task.end(network, begun, outcome)
        self._note()
        return reply

    def fail(self, error: Exception) -> Message:
        """Reply with the reason."""
        self._note()
        return self.task.fail(error)

    def _note(self) -> None:
        self.spans.append(Span("client", self.begun, time.monotonic(), *self.path))
