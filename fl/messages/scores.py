"""A client's score of the final network, on images of its own that it has not trained on."""

import math
from dataclasses import dataclass

from flwr.app import Message, MetricRecord, RecordDict

from fl.messages import records
from fl.messages.node_info import NodeInfo
from fl.tasks import Metric

_HELD_OUT, _SCORE = "held-out", "score"


@dataclass(frozen=True)
class Score:
    """What a client says of a network."""

    partition: int
    held_out: int
    """Images that it scored the network on."""
    value: float | None
    """The primary metric on them; None where it is not defined, as without images."""


def describe(score: Score) -> RecordDict:
    """Return what a client answers."""
    value = math.nan if score.value is None else score.value
    told = {records.PARTITION: score.partition, _HELD_OUT: score.held_out, _SCORE: value}
    return RecordDict({records.METRICS: MetricRecord(told)})  # pyrefly: ignore


def read(reply: Message, told: NodeInfo, metric: Metric) -> Score:
    """Read what a client answers.

    Args:
        reply: the answer.
        told: what this client said of itself before.
        metric: the primary one.

    Raises:
        ValueError: the client failed, or its answer can't be true. The message is one line.
    """
    if reply.has_error():
        raise ValueError(records.reason(reply))
    record = reply.content.get(records.METRICS)
    found: dict = dict(record) if isinstance(record, MetricRecord) else {}
    if found.keys() != {records.PARTITION, _HELD_OUT, _SCORE} or len(reply.content) != 1:
        raise ValueError("its answer is no score")
    if found[records.PARTITION] != told.partition:
        raise ValueError(f"its score is of partition {found[records.PARTITION]!r}")
    images, value = found[_HELD_OUT], found[_SCORE]
    if type(images) is not int or not 0 <= images <= told.held_out:
        raise ValueError(f"{_HELD_OUT}={images!r}, but it said that it holds {told.held_out}")
    if type(value) is not float or (metric.fraction and (value < 0 or value > 1)):
        raise ValueError(f"{_SCORE}={value!r} is no {metric.name}")
    known = images and math.isfinite(value)
    return Score(told.partition, images, value if known else None)
