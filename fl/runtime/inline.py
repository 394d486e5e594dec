"""Clients in this process: one after another, or many at a time in lanes."""

from collections.abc import Iterator, Sequence

from flwr.app import Error, Message, MessageType
from flwr.clientapp import ClientApp

from fl import client
from fl.config import Experiment
from fl.runtime.simulated import Question, SimulatedGrid


class InlineGrid(SimulatedGrid):
    """Replies come in the order of the requests.

    A client is trained when its reply is asked for, so at most one reply is in memory; a cohort,
    when the first of its replies is.

    Args:
        app: the client app.
        knobs: the run config that clients see.
        cohort: how many clients at a time are asked to train by `fl.client.fit`; 1: each by `app`.
    """

    def __init__(self, app: ClientApp, knobs: Experiment, cohort: int = 1) -> None:
        super().__init__(knobs)
        self.app, self.cohort = app, cohort

    def answers(self, questions: Sequence[Question]) -> Iterator[Message]:
        """Yield a reply per request, in their order."""
        for begin in range(0, len(questions), self.cohort):
            together = questions[begin : begin + self.cohort]
            yield from trained(together) if self.cohort > 1 else called(self.app, together)


def trained(questions: Sequence[Question]) -> Iterator[Message]:
    """Train clients together; of another request, answer each as its app does."""
    if any(message.metadata.message_type != MessageType.TRAIN for message, _ in questions):
        yield from called(client.app, questions)
    else:
        yield from client.fit(*zip(*questions, strict=True))


def called(app: ClientApp, questions: Sequence[Question]) -> Iterator[Message]:
    """Call an app for each request; an error is an answer."""
    for message, context in questions:
        try:
            yield app(message, context)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            yield Message(Error(0, reason), reply_to=message)
