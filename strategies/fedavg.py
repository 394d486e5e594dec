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

from strategies import npy
from strategies.mean import Mean


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
