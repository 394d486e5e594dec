"""The nodes of a simulation: Flower's Grid without a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl.client import app as client
from fl.config import Experiment
from fl.simulation.flower_internals import SERVER_NODE, act_as_server, number_message

Question = tuple[Message, Context]
"""A request, and the context of the client that it is for."""


class SimulatedGrid(Grid, ABC):
    """Nodes that are simulated; who does their work is for subclasses to say.

    Each client keeps its Flower context, and so its state, for as long as the grid lives.

    Args:
        knobs: the run config that clients see.
    """

    def __init__(self, knobs: Experiment) -> None:
        self._run = act_as_server(run_id=1)
        self._numbers = count(1)
        clients = knobs.partition.clients
        first, run_config = SERVER_NODE + 1, knobs.to_flat()
        self.contexts = {
            first + partition: Context(
                run_id=1,
                node_id=first + partition,
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config=run_config,
            )
            for partition in range(clients)
        }
        self._changed: set[int] = set()
        self._remembering: set[int] = set()

    @abstractmethod
    def answers(self, questions: Sequence[Question]) -> Iterator[Message]:
        """Yield a reply per request, in any order, and leave clients' contexts as they then are."""

    @property
    def run(self) -> Run:
        """The run, as Flower describes it."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take over a run's description."""
        self._run = run

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes: partition 0 first."""
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield a reply per message; `timeout` is ignored, since a simulated client is not lost."""
        yield from self._heard(self.answers(self._asked(messages)))

    def _asked(self, messages: Iterable[Message]) -> list[Question]:
        questions = [(m, self.contexts[m.metadata.dst_node_id]) for m in messages]
        for message, _ in questions:
            number_message(message, next(self._numbers))
        return questions

    def _heard(self, answers: Iterable[Message]) -> Iterator[Message]:
        for reply in answers:
            self._changed.add(reply.metadata.src_node_id)
            yield reply

    def changed_states(self) -> Mapping[int, RecordDict]:
        """Return the states, by partition id, of clients called since the last time.

        A client that never remembered anything has none.
        """
        self._remembering |= {node for node in self._changed if len(self.contexts[node].state)}
        states = {
            int(self.contexts[node].node_config["partition-id"]): self.contexts[node].state
            for node in sorted(self._changed & self._remembering)
        }
        self._changed.clear()
        return states

    def restore_states(self, states: Mapping[int, RecordDict]) -> None:
        """Give clients, by partition id, the states that they had."""
        for node, context in self.contexts.items():
            partition = int(context.node_config["partition-id"])
            context.state = states.get(partition, RecordDict())
            if partition in states:
                self._remembering.add(node)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: Flower deprecated it in favour of `Message(...)`."""
        raise NotImplementedError("use Message(content, dst_node_id, message_type)")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: a process that waits for itself would wait for ever."""
        raise NotImplementedError("use send_and_receive: this grid has no queue")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages`."""
        raise NotImplementedError("use send_and_receive: this grid has no queue")


class InlineGrid(SimulatedGrid):
    """Replies come in the order of the requests.

    A client is trained when its reply is asked for, so at most one reply is in memory; a cohort,
    when the first of its replies is.

    Args:
        app: the client app.
        knobs: the run config that clients see.
        cohort: how many clients at a time are asked to train by `fit`; 1: each by `app`.
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
