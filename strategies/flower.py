"""Flower's own strategies, made repeatable by what they are handed.

A strategy of Flower's is asked as it is. It gets a grid whose nodes are the clients of the round,
drawn by us, and replies in the order of partitions, in float64. While it runs, the global
generators of Python and NumPy are functions of the seed and the round. Between rounds, what its
attributes hold is its state. It gets parameters only, since a server optimizer's step on a running
variance can make it negative; BatchNorm's statistics are averaged as `state.bn` says.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from strategies import arrays as npy
from strategies.arrays import Arrays
from strategies.serving.attributes import Attributes
from strategies.serving.server import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND,
    Average,
    Fold,
    Sampler,
    Server,
)
from strategies.strategy import Clients

_OURS = ("fraction_train", "min_train_nodes", "min_available_nodes", "arrayrecord_key")
_OURS += ("configrecord_key", "fraction_evaluate", "min_evaluate_nodes")
"""Parameters of Flower's constructors that are decided here."""


@runtime_checkable
class Meeting(Protocol):
    """A strategy of Flower's that is told how clients train, as `strategies.strategy.Strategy`."""

    def meet(self, clients: Clients) -> None:
        """Take note of how clients train, or refuse them with a ValueError."""
        ...


def flowers(
    kind: Callable[..., flower.Strategy], own: Mapping[str, Any], clients: Clients
) -> flower.Strategy:
    """Return a strategy of Flower's.

    Args:
        kind: its class.
        own: arguments of its constructor.
        clients: those that it meets, if it has a method for that.

    Raises:
        ValueError: an argument is one that is decided here, or the strategy refuses.
    """
    for name in own:
        if name in _OURS:
            raise ValueError(f"{name} is not to be set: sampling.clients says how many are asked")
    with _alone(np.random.default_rng(0)):
        found = kind(**own)
        if isinstance(found, Meeting):
            found.meet(clients)
        return found


class Facade(Server):
    """Plays a strategy of Flower's.

    Args:
        strategy: what is played.
        sampler: draws the clients of a round.
        stream: (round, which of its two calls) -> the generator of what the strategy draws there.
        parameters: names of the network's parameters, in its order; all other tensors are averaged.
        moments: as `strategies.serving.server.Averaging`.

    Raises:
        ValueError: an attribute of the strategy holds what a checkpoint can't.
    """

    def __init__(
        self,
        strategy: flower.Strategy,
        sampler: Sampler,
        stream: Callable[[int, str], np.random.Generator],
        parameters: Sequence[str],
        moments: Mapping[str, str],
    ) -> None:
        self.strategy, self.sampler, self.stream = strategy, sampler, stream
        self.parameters, self.moments = parameters, moments
        self.attributes = Attributes(strategy)

    @property
    def is_mean(self) -> bool:
        """Whether the strategy's rule is Flower's weighted mean, and nothing else.

        Ours takes its place then: it is the same formula, it does not hold replies, and its sums
        in float64 have the bytes of ``strategy.kind=fedavg``.
        """
        rule, plain = type(self.strategy).aggregate_train, flower.FedAvg()
        told = "weighted_by_key", "train_metrics_aggr_fn"
        return rule is flower.FedAvg.aggregate_train and all(
            getattr(self.strategy, name) == getattr(plain, name) for name in told
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy ask the clients of the round; in the order of their partition ids.

        Raises:
            ValueError: it asks others, or sends what our clients can't read.
        """
        self.sent, config[ROUND] = arrays, server_round
        nodes = self.sampler.draw(server_round)
        if not nodes:
            return []
        for part in _within(self.strategy):
            wanted = {"fraction_train": 1.0, "min_train_nodes": len(nodes)}
            for name, value in {**wanted, "min_available_nodes": len(nodes)}.items():
                if hasattr(part, name):
                    setattr(part, name, value)
        given = self.handed(arrays)
        with _alone(self.stream(server_round, "ask")):
            asked = self.strategy.configure_train(server_round, given, config, _Nodes(nodes, grid))
            messages = {message.metadata.dst_node_id: message for message in asked}
        if odd := messages.keys() - set(nodes):
            raise ValueError(
                f"{self.name} asks nodes {sorted(odd)[:3]}, which are not in the round"
            )
        for content in {id(m.content): m.content for m in messages.values()}.values():
            self._complete(content, given, arrays)
        return [messages[node] for node in nodes if node in messages]

    def fold(self, server_round: int, start: Arrays) -> Fold:
        """Begin to gather a round's replies, or to average them where that is the rule."""
        average = Average(self.moments, uniform=False)
        return average if self.is_mean else _Held(self, server_round, average)

    def state(self) -> dict[str, np.ndarray]:
        """Return what the strategy's attributes hold."""
        return self.attributes.stored()

    def restore(self, state: Arrays) -> None:
        """Give the strategy's attributes what they held."""
        if state:
            self.attributes.restore(state)

    @property
    def name(self) -> str:
        """The name of the strategy's class."""
        return type(self.strategy).__name__

    def aggregated(
        self, server_round: int, replies: list[Message], mean: Arrays
    ) -> dict[str, np.ndarray] | None:
        """Return the strategy's network in the types of the mean, which has all other tensors.

        Raises:
            ValueError: it is not the network that was sent.
        """
        with _alone(self.stream(server_round, "aggregate")):
            found, _ = self.strategy.aggregate_train(server_round, replies)
        if found is None:
            return None
        network, made = dict(mean), npy.arrays(found)
        if odd := made.keys() ^ set(self.parameters):
            raise ValueError(f"{self.name} returned other tensors: {sorted(odd)[:3]}")
        for name, array in made.items():
            if array.shape != mean[name].shape or not np.isfinite(array).all():
                raise ValueError(f"{self.name} returned a {name} of another shape, or not finite")
            network[name] = array.astype(mean[name].dtype)
        return network

    def handed(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the parameters of a network in float64, as the strategy gets them.

        They are in the network's order, which a checkpoint does not keep, and some of Flower's
        strategies go by.
        """
        found = npy.arrays(arrays)
        return npy.record({name: found[name].astype(np.float64) for name in self.parameters})

    def _complete(self, content: RecordDict, given: ArrayRecord, arrays: ArrayRecord) -> None:
        """Put the whole network into a request, in its own types."""
        if content.keys() != {ARRAYS, CONFIG}:
            raise ValueError(
                f"{self.name} sends {sorted(content)}, and our clients read {ARRAYS} and {CONFIG}"
            )
        record = content[ARRAYS]
        assert isinstance(record, ArrayRecord)
        if record is not given:
            own, whole = npy.arrays(record), npy.arrays(arrays)
            cast = {name: array.astype(whole[name].dtype) for name, array in own.items()}
            arrays = npy.record({**whole, **cast})
        content[ARRAYS] = arrays


class _Held:
    """All replies of a round, which Flower's rules need at once."""

    def __init__(self, facade: Facade, number: int, average: Average) -> None:
        self.facade, self.number, self.average = facade, number, average
        self.replies: list[Message] = []

    def add(self, reply: Message) -> None:
        """Keep a reply, with parameters in float64, and without what Flower does not know."""
        self.average.add(reply)
        network, figures = reply.content[ARRAYS], reply.content[METRICS]
        assert isinstance(network, ArrayRecord)
        handed = self.facade.handed(network)
        reply.content = RecordDict({ARRAYS: handed, METRICS: figures})
        self.replies.append(reply)

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the strategy's network; None where it made none."""
        mean, figures = self.average.result()
        if mean is None:
            return None, None
        found = self.facade.aggregated(self.number, self.replies, npy.arrays(mean))
        return (None if found is None else npy.record(found)), figures


class _Nodes(Grid):
    """A grid whose nodes are the clients of one round."""

    def __init__(self, nodes: list[int], grid: Grid) -> None:
        self.nodes, self.grid = nodes, grid

    @property
    def run(self) -> Any:
        """The run, as Flower describes it."""
        return self.grid.run

    def set_run(self, run: Any) -> None:
        """Refuse: the run is not the strategy's."""
        raise NotImplementedError("a strategy only learns which nodes are in the round")

    def get_node_ids(self) -> Iterable[int]:
        """Return the clients of the round, in the order of their partition ids."""
        return list(self.nodes)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: Flower deprecated it in favour of `Message(...)`."""
        raise NotImplementedError("use Message(content, dst_node_id, message_type)")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: what `configure_train` returns is sent."""
        raise NotImplementedError("return messages from configure_train")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as `push_messages`."""
        raise NotImplementedError("replies come to aggregate_train")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse, as `push_messages`."""
        raise NotImplementedError("return messages from configure_train")


def _within(strategy: flower.Strategy) -> Iterator[flower.Strategy]:
    """Yield a strategy and those that it wraps."""
    yield strategy
    for value in vars(strategy).values():
        if isinstance(value, flower.Strategy):
            yield from _within(value)


@contextmanager
def _alone(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global generators of Python and NumPy for a while, and keep Flower's log quiet."""
    log = logging.getLogger("flwr")
    level, states = log.level, (random.getstate(), np.random.get_state())  # noqa: NPY002 - put back below
    seeds = rng.integers(2**32, size=2).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002 - what Flower's strategies draw from
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as it was
