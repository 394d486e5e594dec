"""The nodes of a simulation: Flower's Grid without a network."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fl.client import task
from fl.client.spans import Span
from fl.config import Experiment
from fl.messages.flower_internals import SERVER_NODE, Run, act_as_server, number_message
from fl.reproducibility.errors import in_words
from fl.server.nodes import Runtime
from fl.simulation.workers.profile import SERVER, Profile
from fl.vectorized.operators import Operators

Request = tuple[Message, Context]
"""A request, and the context of the client that it is for."""


class SimulatedGrid(Grid, Runtime, ABC):
    """Nodes that are simulated; who does their work is for subclasses to say.

    Each client keeps its Flower context, and so its state, for as long as the grid lives.

    Args:
        knobs: the run config that clients see.
        profile: hears when whoever does it is at what; None: nobody does.
    """

    here = SERVER
    """The number that a profile has for this process."""

    def __init__(self, knobs: Experiment, profile: Profile | None = None) -> None:
        self.profile = profile
        self._run = act_as_server(run_id=1)
        self._knobs, self._run_config = knobs, knobs.to_flat()
        self._numbers = count(1)
        clients, first = knobs.partition.clients, SERVER_NODE + 1
        self.contexts = {
            first + partition: Context(
                run_id=1,
                node_id=first + partition,
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config=self._run_config,
            )
            for partition in range(clients)
        }
        self._changed: set[int] = set()
        self._remembering: set[int] = set()

    @property
    def grid(self) -> Grid:
        """What carries messages: this object itself."""
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Give what a network is evaluated within, by this process."""
        with quickly(self._knobs), self._noted("evaluate"):
            yield

    def _noted(self, what: str) -> AbstractContextManager[list[Span] | None]:
        """Return what notes that this process is at something, and gives a list for more."""
        return self.profile.within(self.here, what) if self.profile else nullcontext()

    @abstractmethod
    def answers(self, requests: Sequence[Request]) -> Iterator[Message]:
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

    def _asked(self, messages: Iterable[Message]) -> list[Request]:
        requests = [(m, self.contexts[m.metadata.dst_node_id]) for m in messages]
        for message, _ in requests:
            number_message(message, next(self._numbers))
        return requests

    def _heard(self, answers: Iterable[Message]) -> Iterator[Message]:
        for reply in answers:
            self._changed.add(reply.metadata.src_node_id)
            yield reply
            del reply  # else two are in memory while the next one is made

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
    """Clients in this process. Replies come in the order of the requests.

    A client is trained when its reply is asked for, so at most one reply is in memory; where
    several are asked at once, when the first of their replies is.

    Args:
        knobs: the run config that clients see.
        app: what answers each request by itself; None: `fl.client.task.answer`.
        at_once: how many clients at a time are asked, without an app.
        catch: whether an exception of a client is its answer. Else it is raised as it is.
        profile: hears when this process is at what, without an app.
    """

    here = 0

    def __init__(
        self,
        knobs: Experiment,
        app: ClientApp | None = None,
        at_once: int = 1,
        catch: bool = True,
        profile: Profile | None = None,
    ) -> None:
        super().__init__(knobs, profile)
        self.app, self.at_once, self.catch = app, at_once, catch
        self.at_work: tuple[float, Sequence[Request]] | None = None
        """Since when which requests are answered; None where none are."""
        self.longest = 0.0
        """Seconds that answering them took at most."""

    def answers(self, requests: Sequence[Request]) -> Iterator[Message]:
        """Yield a reply per request, in their order."""
        if self.app is not None:
            yield from called(self.app, requests)
            return
        for begin in range(0, len(requests), self.at_once):
            chunk = requests[begin : begin + self.at_once]
            self.at_work = (began := time.monotonic()), chunk
            with self._noted(chunk[0][0].metadata.message_type) as spans:
                replies = task.answer(*zip(*chunk, strict=True), catch=self.catch, spans=spans)
            self.at_work, self.longest = None, max(self.longest, time.monotonic() - began)
            yield from replies
            del replies  # they would stay in memory while the next clients are trained


def called(app: ClientApp, requests: Sequence[Request]) -> Iterator[Message]:
    """Call an app for each request; an error is an answer."""
    for message, context in requests:
        try:
            yield app(message, context)
        except Exception as error:
            yield Message(Error(0, in_words(error)), reply_to=message)


def quickly(knobs: Experiment) -> AbstractContextManager[object]:
    """Return what a network is evaluated within: with lanes by operators of ours, these."""
    return Operators() if native(knobs) else nullcontext()


def native(knobs: Experiment) -> bool:
    """Return whether clients are trained in lanes by operators of ours."""
    return knobs.engine == "vectorized" and knobs.vectorized.level in ("native", "compiled")
