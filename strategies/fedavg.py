"""FedAvg (arXiv 1602.05629), made repeatable: own sampling, and a mean folded as a stream."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from strategies import arrays as npy
from strategies.strategy import ARRAYS, CONFIG, METRICS, ROUND, WEIGHT, Correction, Fold, Strategy


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

    def draw(self, server_round: int) -> list[int]:
        """Return the nodes of a round's clients, in the order of their partition ids."""
        there = self.available(server_round)
        count = min(self.clients, len(there))
        chosen = self.stream(server_round).choice(there, count, replace=False) if count else []
        return [self.nodes[int(partition)] for partition in sorted(chosen)]


class FedAvg(Strategy):
    """The mean of the clients' networks, weighted by their numbers of examples n_k.

    ``w = Σ n_k w_k / Σ n_k``, for parameters and for floating-point buffers (BatchNorm's running
    means and variances, where the latter are not pooled) alike; an integer buffer becomes the
    nearest integer to its mean. Learnable scalars that are stored as logarithms are averaged as
    stored: the weighted geometric mean.

    Flower's own FedAvg adds replies in the order of their arrival, in the arrays' own type. This
    one adds them in the order that it is given, in float64.

    Args:
        sampler: draws the clients of a round.
        moments: variances to be pooled -> their means (see `Mean`); all others are averaged.
        uniform: whether all clients count the same, n_k = 1, as noise for privacy presumes.
    """

    def __init__(
        self, sampler: Sampler, moments: Mapping[str, str] | None = None, uniform: bool = False
    ) -> None:
        self.sampler, self.moments, self.uniform = sampler, moments, uniform

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask random clients, in the order of their partition ids; all share one record."""
        config[ROUND] = server_round
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        nodes = self.sampler.draw(server_round)
        return [Message(content, node, MessageType.TRAIN) for node in nodes]

    def fold(self, server_round: int) -> Fold:
        """Begin a mean over a round's replies."""
        return Average(self.moments, self.uniform)

    @staticmethod
    def correction(config: ConfigRecord) -> Correction | None:
        """Return None: FedAvg's clients follow their own gradients."""
        return None


class Average:
    """The mean of a round's networks and of their figures, folded one reply at a time.

    Args:
        moments: as `FedAvg`.
        uniform: as `FedAvg`.
    """

    def __init__(self, moments: Mapping[str, str] | None, uniform: bool) -> None:
        self.arrays, self.figures, self.uniform = Mean(moments), Mean(), uniform

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
        return npy.record(self.arrays.result()), MetricRecord(dict(figures))


_PIECE = 16_384
"""Values, of 8 bytes each."""


class Mean:
    """The mean ``Σ n_k x_k / Σ n_k`` of named arrays, added one by one, in float64.

    A variance v_k that comes with its mean m_k can be pooled: ``Σ n_k (v_k + (m_k - m)²) / Σ n_k``,
    where m is the mean of the means, is the variance of all that the clients saw together (the law
    of total variance), while the mean of the variances leaves out how far the clients are apart.

    Args:
        moments: the names of the variances to be pooled -> those of their means.
    """

    def __init__(self, moments: Mapping[str, str] | None = None) -> None:
        self.total = 0.0
        self.moments = moments or {}
        self.sums: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._product = np.empty(_PIECE)

    def add(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Add arrays under their names."""
        for name, array in arrays.items():
            if name not in self.sums:
                self.sums[name] = np.zeros(array.shape, np.float64)
                self.dtypes[name] = array.dtype
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
        """Return the mean in the arrays' own types; integers are rounded to the nearest."""
        means = {name: np.asarray(total / self.total) for name, total in self.sums.items()}
        for variance, mean in self.moments.items():
            means[variance] = np.maximum(means[variance] - means[mean] ** 2, 0)
        return {name: _cast(mean, self.dtypes[name]) for name, mean in means.items()}


def _cast(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.asarray(mean if dtype.kind == "f" else np.rint(mean), dtype)
