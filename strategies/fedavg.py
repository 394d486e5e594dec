"""FedAvg (arXiv 1602.05629), made repeatable: own sampling, and a mean folded as a stream."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from strategies import arrays as npy


class FedAvg(flower.FedAvg):
    """The mean of the clients' networks, weighted by their numbers of examples n_k.

    ``w = Σ n_k w_k / Σ n_k``, for parameters and for floating-point buffers (BatchNorm's running
    means and variances, where the latter are not pooled) alike; an integer buffer becomes the
    nearest integer to its mean. Learnable scalars that are stored as logarithms are averaged as
    stored: the weighted geometric mean.

    Flower's own FedAvg draws clients from Python's global generator over a set of random node ids
    and adds replies in the order of their arrival. This one draws over sorted partition ids from a
    stream that depends on the round alone, and adds in the order that it is given, in float64.

    Args:
        sample: clients asked in a round.
        nodes: partition id -> Flower's node id.
        available: round -> sorted partition ids that can be asked; all of them if fewer than
            `sample`.
        stream: round -> the generator that draws the clients of that round.
        weight_key, arrays_key, config_key, metrics_key: the names of the weight and of records in
            messages.
        moments: variances to be pooled -> their means (see `Mean`); all others are averaged.
        uniform: whether all clients count the same, n_k = 1, as noise for privacy presumes.
    """

    def __init__(
        self,
        sample: int,
        nodes: Mapping[int, int],
        available: Callable[[int], Sequence[int]],
        stream: Callable[[int], np.random.Generator],
        weight_key: str,
        arrays_key: str,
        config_key: str,
        metrics_key: str,
        moments: Mapping[str, str] | None = None,
        uniform: bool = False,
    ) -> None:
        super().__init__(
            weighted_by_key=weight_key, arrayrecord_key=arrays_key, configrecord_key=config_key
        )
        self.sample, self.nodes = sample, nodes
        self.available, self.stream = available, stream
        self.metrics_key, self.moments, self.uniform = metrics_key, moments, uniform

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask random clients, in the order of their partition ids; all share one record."""
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        there = self.available(server_round)
        count = min(self.sample, len(there))
        chosen = self.stream(server_round).choice(there, count, replace=False) if count else []
        return self._construct_messages(
            content,
            [self.nodes[int(partition)] for partition in sorted(chosen)],
            MessageType.TRAIN,
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold replies into their mean, one at a time; (None, None) where there is none.

        Memory does not grow with the number of replies. The caller has checked them.
        """
        arrays, metrics = Mean(self.moments), Mean()
        for reply in replies:
            # Not `content.array_records`: that view is a reference cycle with the reply, which
            # would keep it in memory until Python's collector comes by.
            network, record = reply.content[self.arrayrecord_key], reply.content[self.metrics_key]
            assert isinstance(network, ArrayRecord)
            assert isinstance(record, MetricRecord)
            weight = 1.0 if self.uniform else float(record[self.weighted_by_key])  # pyrefly: ignore
            arrays.add(npy.arrays(network), weight)
            metrics.add({name: np.asarray(value) for name, value in record.items()}, weight)
        if not arrays.total:
            return None, None
        figures = {name: float(value) for name, value in metrics.result().items()}
        return npy.record(arrays.result()), MetricRecord(dict(figures))


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
