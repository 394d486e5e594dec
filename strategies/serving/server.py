"""The server half of every strategy: who is asked, and a mean that is folded as a stream."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from strategies import arrays as npy
from strategies.arrays import Arrays
from strategies.serving.forms import Form

ARRAYS, CONFIG, METRICS, VECTORS = "arrays", "config", "metrics", "vectors"
ROUND, WEIGHT, PARTITION = "server-round", "num-examples", "partition-id"
"""The keys of records and of values in messages. Flower's own strategies use the same."""


@runtime_checkable
class Fold(Protocol):
    """The replies of one round as they become one network: one at a time, in the order given."""

    def add(self, reply: Message) -> None:
        """Take a reply that has been checked."""
        ...

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the network and the mean figures; (None, None) where no reply came."""
        ...


class Server(flower.Strategy):
    """What plays a strategy on the server: a Flower `Strategy` whose rounds are repeatable."""

    expected: ArrayRecord | None = None
    """The vectors that replies should carry besides their network, as an example; None: none."""
    sent: ArrayRecord = ArrayRecord()
    """The network of the round under way, for Flower's own server, which does not tell it again.
    It is set anew in each round, so no checkpoint has to carry it."""

    @abstractmethod
    def fold(self, server_round: int, start: Arrays) -> Fold:
        """Begin to make one network of a round's replies; `start` is what clients began with."""

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of what is remembered between rounds, after the last fold's end."""
        return {}

    def restore(self, state: Arrays) -> None:
        """Remember what `state` returned.

        Raises:
            ValueError: it is not a state of this strategy.
        """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold replies one at a time, as Flower's server asks; the caller has checked them."""
        fold = self.fold(server_round, npy.arrays(self.sent))
        for reply in replies:
            fold.add(reply)
        return fold.result()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: clients score networks when they train, and the server on its own images."""
        return ()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing, since nobody was asked."""

    def summary(self) -> None:
        """Log nothing: `experiment.json` says what is run."""


@dataclass(frozen=True)
class Sampler:
    """Draws the clients of a round, as a function of the round alone.

    Flower's own strategies draw from Python's global generator over a set of random node ids. This
    one draws over sorted partition ids from a stream of its own.
    """

    clients: int
    """How many are asked in a round; all that can be asked if they are fewer."""
    nodes: Mapping[int, int]
    """Partition id -> Flower's node id."""
    available: Callable[[int], Sequence[int]]
    """Round -> sorted partition ids that can be asked."""
    stream: Callable[[int], np.random.Generator]
    """Round -> the generator that draws the clients of that round."""
    choose: Callable[[int, Sequence[int], int, np.random.Generator], Sequence[int]] | None = None
    """A strategy's own way to choose, of (round, available, count, generator)."""

    def draw(self, server_round: int) -> list[int]:
        """Return the nodes of a round's clients, in the order of their partition ids.

        Raises:
            ValueError: the strategy chose clients that can't be asked, or one twice.
        """
        there = self.available(server_round)
        count = min(self.clients, len(there))
        if not count:
            return []
        rng = self.stream(server_round)
        if self.choose is None:
            chosen = rng.choice(there, count, replace=False)
        else:
            chosen = [int(one) for one in self.choose(server_round, there, count, rng)]
            if len(set(chosen)) < len(chosen) or not set(chosen) <= set(there):
                raise ValueError(f"choose returned {chosen}, expected different ones of {there}")
        return [self.nodes[int(partition)] for partition in sorted(chosen)]


class Averaging(Server):
    """The mean of the clients' networks, weighted by their numbers of examples n_k.

    ``w = Σ n_k w_k / Σ n_k``, for parameters and for floating-point buffers (BatchNorm's running
    means and variances, where the latter are not pooled) alike; an integer buffer becomes the
    nearest integer to its mean. Learnable scalars that are stored as logarithms are averaged as
    stored, which is the weighted geometric mean, or in another form.

    Flower's own FedAvg adds replies in the order of their arrival, in the arrays' own type. This
    one adds them in the order that it is given, in float64.

    Args:
        sampler: draws the clients of a round.
        moments: variances to be pooled -> their means (see `Mean`); all others are averaged.
        uniform: whether all clients count the same, n_k = 1, as noise for privacy presumes.
        forms: what is averaged in another form (see `Mean`).
    """

    def __init__(
        self,
        sampler: Sampler,
        moments: Mapping[str, str] | None = None,
        uniform: bool = False,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self.sampler, self.moments, self.uniform, self.forms = sampler, moments, uniform, forms

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask random clients, in the order of their partition ids; all share one record."""
        config[ROUND] = server_round
        self.sent = arrays
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        nodes = self.sampler.draw(server_round)
        return [Message(content, node, MessageType.TRAIN) for node in nodes]

    def fold(self, server_round: int, start: Arrays) -> Fold:
        """Begin a mean over a round's replies."""
        return Average(self.moments, self.uniform, self.forms)


class Average:
    """The mean of a round's networks and of their figures, folded one reply at a time.

    Args:
        moments: as `Averaging`.
        uniform: as `Averaging`.
        forms: as `Averaging`.
    """

    def __init__(
        self,
        moments: Mapping[str, str] | None,
        uniform: bool,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self.arrays, self.figures, self.uniform = Mean(moments, forms), Mean(), uniform

    def add(self, reply: Message) -> None:
        """Add a reply."""
        # Not `content.array_records`: that view is a reference cycle with the reply, which would
        # keep it in memory until Python's collector comes by.
        network, record = reply.content[ARRAYS], reply.content[METRICS]
        assert isinstance(network, ArrayRecord)
        assert isinstance(record, MetricRecord)
        weight = 1.0 if self.uniform else float(record[WEIGHT])  # pyrefly: ignore
        self.arrays.add(npy.arrays(network), weight)
        self.figures.add({name: np.asarray(value) for name, value in record.items()}, weight)

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the means; (None, None) where no reply was added."""
        if not self.arrays.total:
            return None, None
        figures = {name: float(value) for name, value in self.figures.result().items()}
        packed = ArrayRecord()
        for name, mean in self.arrays.drain():
            packed[name] = npy.pack(mean)
        return packed, MetricRecord(dict(figures))


_PIECE = 16_384
"""Values, of 8 bytes each."""


class Mean:
    """The mean ``Σ n_k x_k / Σ n_k`` of named arrays, added one by one, in float64.

    A variance v_k that comes with its mean m_k can be pooled: ``Σ n_k (v_k + (m_k - m)²) / Σ n_k``,
    where m is the mean of the means, is the variance of all that the clients saw together (the law
    of total variance), while the mean of the variances leaves out how far the clients are apart.

    Args:
        moments: the names of the variances to be pooled -> those of their means.
        forms: names -> what their mean is taken of, where it is not they themselves.
    """

    def __init__(
        self,
        moments: Mapping[str, str] | None = None,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self.total = 0.0
        self.moments, self.forms = moments or {}, forms or {}
        self.sums: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._product = np.empty(_PIECE)

    def add(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Add arrays under their names."""
        for name, array in arrays.items():
            if name not in self.sums:
                self.sums[name] = np.zeros(array.shape, np.float64)
                self.dtypes[name] = array.dtype
            if name in self.forms:
                array = self.forms[name].of(array)
            if name in self.moments:
                array = array + arrays[self.moments[name]].astype(np.float64) ** 2
            self._add_weighted(self.sums[name].reshape(-1), array.reshape(-1), weight)
        self.total += weight

    def _add_weighted(self, total: np.ndarray, values: np.ndarray, weight: float) -> None:
        """Add in pieces that stay in the processor's cache: memory is read and written once."""
        for begin in range(0, len(total), _PIECE):
            piece = total[begin : begin + _PIECE]
            product = self._product[: len(piece)]
            np.multiply(values[begin : begin + _PIECE], weight, out=product, dtype=np.float64)
            piece += product

    def result(self) -> dict[str, np.ndarray]:
        """Return the mean in the arrays' own types, and forget the sums.

        Integers are rounded to the nearest.
        """
        return dict(self.drain())

    def drain(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield what `result` returns by name, and forget each sum once its mean is known.

        So what is in memory at once is the sums and the largest mean, and not two of all.
        """
        pooled = {
            variance: self.sums[variance] / self.total - (self.sums[mean] / self.total) ** 2
            for variance, mean in self.moments.items()
        }
        for name in list(self.sums):
            mean = self.sums.pop(name)
            np.divide(mean, self.total, out=mean)
            if name in pooled:
                mean = np.maximum(pooled[name], 0)
            if name in self.forms:
                mean = np.asarray(self.forms[name].back(mean))
            cast = _cast(mean, self.dtypes[name])
            del mean  # it would stay in memory while the caller does something with its copy
            yield name, cast


def _cast(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.asarray(mean if dtype.kind == "f" else np.rint(mean), dtype)
