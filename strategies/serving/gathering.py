"""Playing a `Strategy` on the server: its vectors in requests, and its own rule over the mean."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from strategies import arrays as npy
from strategies.arrays import Arrays
from strategies.serving.private import Private
from strategies.serving.server import (
    ARRAYS,
    METRICS,
    PARTITION,
    VECTORS,
    WEIGHT,
    Averaging,
    Mean,
    Server,
)
from strategies.strategy import Gathered, Reply, Strategy, Vector, overrides


@dataclass(frozen=True)
class Layout:
    """How a network's parameters lie in one vector."""

    names: Sequence[str]
    """Of the parameters, in the order of the vector; all other tensors are not in it."""
    shapes: Sequence[tuple[int, ...]]
    dtype: np.dtype
    """Of the vector on a client, and so of the vectors that travel."""

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(map(math.prod, self.shapes))

    def vector(self, arrays: Arrays) -> Vector:
        """Return a network's parameters in one vector, in float64."""
        parts = [np.asarray(arrays[name], np.float64).reshape(-1) for name in self.names]
        return np.concatenate(parts) if parts else np.empty(0)

    def written(self, vector: Vector, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return a network whose parameters are those of a vector, in the types of `arrays`."""
        found, begin = dict(arrays), 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            part = vector[begin : begin + math.prod(shape)]
            found[name] = part.reshape(shape).astype(arrays[name].dtype)
            begin += math.prod(shape)
        return found


def looks_at_replies(strategy: Strategy) -> list[str]:
    """Return by what a strategy sees more of a round's replies than their mean."""
    looks = [name for name in ("weight", "receive") if overrides(strategy, name)]
    return looks + [name for name in ("holds", "sent") if getattr(strategy, name)]


class Gathering(Server):
    """Plays a strategy that does more than to average.

    Args:
        strategy: what is played.
        mean: asks clients and takes their mean; its sampler follows the strategy's `choose`.
        layout: of the network's parameters.
        clients: N, clients in the federation.

    Raises:
        ValueError: the strategy looks at single replies, which privacy does not allow.
    """

    def __init__(
        self, strategy: Strategy, mean: Averaging | Private, layout: Layout, clients: int
    ) -> None:
        self.strategy, self.mean, self.layout, self.clients = strategy, mean, layout, clients
        average = mean.average if isinstance(mean, Private) else mean
        looks = looks_at_replies(strategy)
        if average.uniform and looks:
            raise ValueError(
                "privacy is for strategies that see the mean only, and this one looks at single "
                f"replies ({', '.join(looks)}); set privacy.kind=none"
            )
        self.reads = bool(looks)
        self.memory: dict[str, np.ndarray] = {n: np.zeros(layout.size) for n in strategy.shared}
        if overrides(strategy, "choose"):
            average.sampler = replace(average.sampler, choose=self._choose)
        if strategy.sent:
            zeros = np.zeros(layout.size, layout.dtype)
            self.expected = npy.record(dict.fromkeys(strategy.sent, zeros))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the mean does, with the strategy's shared vectors in the request."""
        self.sent = arrays
        messages = list(self.mean.configure_train(server_round, arrays, config, grid))
        if messages and self.strategy.shared:
            content = messages[0].content  # which all of them share
            vectors = {n: self.memory[n].astype(self.layout.dtype) for n in self.strategy.shared}
            content[VECTORS] = npy.record(vectors)
        return messages

    def fold(self, server_round: int, start: Arrays) -> "Gatherer":
        """Begin to gather a round's replies."""
        vector = self.layout.vector(start)
        gathered = Gathered(server_round, self.clients, vector, self.memory)
        for name in self.strategy.sent:
            gathered.sums[name] = np.zeros(self.layout.size)
        return Gatherer(self, gathered, start)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of the strategy's state."""
        return {name: value.copy() for name, value in self.memory.items()}

    def restore(self, state: Arrays) -> None:
        """Take up a state where `state` left it.

        Raises:
            ValueError: a shared vector is missing, or is not a number a weight.
        """
        for name in self.strategy.shared if state else ():
            if name not in state or state[name].shape != (self.layout.size,):
                raise ValueError(f"the checkpoint lacks the strategy's vector {name}")
        self.memory.update({name: np.array(value) for name, value in state.items()})

    def _choose(
        self, number: int, clients: Sequence[int], count: int, rng: np.random.Generator
    ) -> Sequence[int]:
        return self.strategy.choose(number, clients, count, rng, self.memory)


class Gatherer:
    """The replies of one round, as a strategy makes one network of them.

    Args:
        server: whose strategy it is.
        gathered: what the strategy is shown.
        start: what clients began with.
    """

    def __init__(self, server: Gathering, gathered: Gathered, start: Arrays) -> None:
        self.strategy, self.layout, self.reads = server.strategy, server.layout, server.reads
        self.gathered, self.weighs = gathered, overrides(server.strategy, "weight")
        self.mean = server.mean.fold(gathered.number, start)
        self.weighted = Mean()

    def add(self, reply: Message) -> None:
        """Add a reply to the mean and to the sums, and show it to the strategy."""
        self.gathered.count += 1
        if self.reads:
            told = self._read(reply)
            for name, vector in told.vectors.items():
                self.gathered.sums[name] += vector
            self.strategy.receive(self.gathered, told)
            if self.strategy.holds:
                self.gathered.replies.append(told)
            if self.weighs:
                weight = float(self.strategy.weight(told))
                if not (math.isfinite(weight) and weight >= 0):
                    raise ValueError(f"weight returned {weight}, expected a number from 0 up")
                self.weighted.add({"weights": told.weights}, weight)
        self.mean.add(reply)

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return what the strategy makes of the round; (None, None) where no reply came.

        Raises:
            ValueError: the strategy's network or state can't be used.
        """
        record, figures = self.mean.result()
        if record is None:
            return None, None
        arrays, gathered = npy.arrays(record), self.gathered
        gathered.mean = self.layout.vector(arrays)
        if self.weighs:
            if not self.weighted.total:
                raise ValueError(f"weight returned 0 for all replies of round {gathered.number}")
            gathered.mean = self.weighted.result()["weights"]
        returned = self.strategy.aggregate(gathered)
        found = np.asarray(returned, np.float64)
        if found.shape != gathered.start.shape:
            code = type(self.strategy).aggregate.__code__
            what = "None" if returned is None else f"an array of shape {found.shape}"
            raise ValueError(
                f"{code.co_filename}:{code.co_firstlineno}: aggregate returned {what}, expected "
                f"the next parameters, of shape {gathered.start.shape}"
            )
        self._settle(gathered.state)
        return npy.record(self.layout.written(found, arrays)), figures

    def _settle(self, state: dict) -> None:
        """Turn a state into what a checkpoint gives back, so that a resumed run computes alike."""
        for name, value in state.items():
            found = np.array(value, order="C")
            if not isinstance(name, str) or found.dtype.kind not in "biuf":
                raise ValueError(
                    f"the state's {name!r} is {type(value).__name__} {value!r:.40}, expected an "
                    "array or a number"
                )
            state[name] = found
        for name in self.strategy.shared:
            if state.get(name, np.empty(0)).shape != self.gathered.start.shape:
                raise ValueError(f"the state's {name!r} is shared, and has to be a number a weight")

    def _read(self, reply: Message) -> Reply:
        network, figures = reply.content[ARRAYS], reply.content[METRICS]
        assert isinstance(network, ArrayRecord)
        told: Mapping = dict(figures)  # pyrefly: ignore
        sent = reply.content[VECTORS] if self.strategy.sent else ArrayRecord()
        assert isinstance(sent, ArrayRecord)
        return Reply(
            partition=int(told[PARTITION]),
            examples=int(told[WEIGHT]),
            steps=int(told["steps"]),
            loss=float(told["loss"]),
            vectors={name: npy.unpack(array).astype(np.float64) for name, array in sent.items()},
            read=partial(_weights, self.layout, network),
        )


def _weights(layout: Layout, network: ArrayRecord) -> Vector:
    return layout.vector(npy.arrays(network))
