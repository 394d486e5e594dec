"""The federation in this process: a grid that calls the client app, or trains many at a time."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl import client, engines, server
from fl.config import Experiment
from fl.journal import Journal
from fl.runtime.flower import SERVER_NODE, act_as_server, number_message


class InlineGrid(Grid):
    """Flower's Grid without a network: replies come one at a time, in the order of the requests.

    A client is trained when its reply is asked for, so at most one reply is in memory; a cohort,
    when the first of its replies is. Each client keeps its Flower context, and so its state, for as
    long as the grid lives.

    Args:
        app: the client app.
        knobs: the run config that clients see.
        cohort: how many clients at a time are asked to train by `fl.client.fit`; 1: each by `app`.
    """

    def __init__(self, app: ClientApp, knobs: Experiment, cohort: int = 1) -> None:
        self.app, self.cohort = app, cohort
        self._run = act_as_server(run_id=1)
        self._numbers = count(1)
        clients = knobs.partition.clients
        first = SERVER_NODE + 1
        self.contexts = {
            first + partition: Context(
                run_id=1,
                node_id=first + partition,
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config=knobs.to_flat(),
            )
            for partition in range(clients)
        }
        self._changed: set[int] = set()
        self._remembering: set[int] = set()

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
        """Yield a reply per message; `timeout` is ignored, since nothing runs beside the caller."""
        coming = iter(messages)
        while together := list(islice(coming, self.cohort)):
            for message in together:
                number_message(message, next(self._numbers))
            contexts = [self.contexts[m.metadata.dst_node_id] for m in together]
            training = all(m.metadata.message_type == MessageType.TRAIN for m in together)
            if self.cohort > 1 and training:
                replies = client.fit(together, contexts)
            else:
                replies = map(self._answer, together, contexts)
            for message, reply in zip(together, replies, strict=True):
                self._changed.add(message.metadata.dst_node_id)
                yield reply

    def _answer(self, message: Message, context: Context) -> Message:
        """Call the app; an error is an answer."""
        try:
            return self.app(message, context)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(0, reason), reply_to=message)

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


def run(
    knobs: Experiment,
    journal: Journal,
    *,
    resume: bool = False,
    watch: server.Watch = lambda line: None,
    command: str = "",
) -> dict:
    """Run an experiment in this process and return its result; see `fl.server.serve`."""
    journal.check(knobs, resume)
    begun, finished = journal.engine(), journal.result()
    # A run goes on as it began, and a finished one needs no engine.
    settled = knobs.replace({**begun, "engine": "sequential"} if finished else begun)
    choice = engines.choose(settled)
    grid = InlineGrid(client.app, choice.knobs, choice.at_once)
    started_by = {"command": command, "runtime": "inline", "engine": choice.told}
    return server.serve(grid, knobs, journal, resume=resume, watch=watch, started_by=started_by)
