"""What travels between server and clients, as Flower records; the only place that knows keys.

A request carries one ArrayRecord (the global network) and one ConfigRecord (the round, what the
strategy asks, and whether to measure signals). A reply carries one ArrayRecord (the client's
network) and one MetricRecord of plain numbers, and where it is asked for them a second one of
signals: a number per layer and figure. Nothing else leaves a client.
"""

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fl.nn.probes import Signals
from strategies import arrays as npy

ARRAYS, CONFIG, METRICS, SIGNALS = "arrays", "config", "metrics", "signals"
ROUND, MU, CLIP = "server-round", "proximal-mu", "clipping_norm"
"""Flower's own names, so that its strategies and ours can be exchanged."""
MEASURE = "measure-signals"
WEIGHT, PARTITION = "num-examples", "partition-id"
WHO_ARE_YOU, RECALIBRATE = "query.who_are_you", "query.recalibrate"

COUNTS = (
    "batch-size",
    "epochs",
    "examples",
    "steps",
    "single-value-steps",
    "held-out",
    "global-correct",
    "personal-correct",
)
RIGHT = ("global-correct", "personal-correct")
MEASURES = ("loss", "gradient-norm", "update-norm", "seconds")
IMAGES = "images"
LAYER = ("acsm", "acv", "gradient-acsm", "gradient-acv", "branch-acv", "dead")
"""Figures of a layer; NaN stands for one that it does not have."""
_JOURNAL = {PARTITION: "partition", WEIGHT: "held"}
_Kind = TypeVar("_Kind", ArrayRecord, ConfigRecord, MetricRecord)


def pack_network(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Turn a network's tensors into a record."""
    return pack_arrays({name: tensor.numpy() for name, tensor in state.items()})


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Turn NumPy arrays into a record."""
    return npy.record(arrays)


def unpack_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Turn a record into NumPy arrays, which can only be read: they are the record's own bytes."""
    return npy.arrays(record)


def unpack_network(record: ArrayRecord) -> dict[str, Tensor]:
    """Turn a record into a network's tensors."""
    return {name: torch.from_numpy(a.copy()) for name, a in unpack_arrays(record).items()}


def size(record: ArrayRecord) -> int:
    """Return the bytes of a record's tensors as they travel."""
    return sum(len(array.data) for array in record.values())


def train_reply(
    state: Mapping[str, Tensor],
    partition: int,
    held: int,
    figures: Mapping[str, int | float],
    signals: Signals | None = None,
) -> RecordDict:
    """Return what a client sends back: its network, the figures of its round, and any signals.

    The weight in the mean is the number of images held, not of images seen, so that a client with
    more local epochs does not count for more.
    """
    metrics: dict[str, int | float] = {PARTITION: partition, WEIGHT: held}
    metrics |= {name.replace("_", "-"): value for name, value in figures.items()}
    content = RecordDict({ARRAYS: pack_network(state), METRICS: MetricRecord(dict(metrics))})
    if signals is not None:
        columns = signals.figures.T.tolist()
        record: dict = {IMAGES: signals.images, **dict(zip(LAYER, columns, strict=True))}
        content[SIGNALS] = MetricRecord(record)
    return content


def signals(content: RecordDict) -> Signals:
    """Return the signals in a reply that has them."""
    record = _record(content, SIGNALS, MetricRecord)
    return Signals(int(record[IMAGES]), np.array([record[key] for key in LAYER]).T)  # pyrefly: ignore


def wants_clip(content: RecordDict) -> float | None:
    """Return the norm to which a request asks to clip the update; None where it does not."""
    config = _record(content, CONFIG, ConfigRecord)
    return float(_number(config, CLIP)) if CLIP in config else None


def wants_signals(content: RecordDict) -> bool:
    """Return whether a request asks for signals."""
    return bool(_record(content, CONFIG, ConfigRecord).get(MEASURE, False))


def figures(content: RecordDict) -> dict:
    """Return a reply's figures under the names that the journal uses; None for one not finite."""
    return {
        _JOURNAL.get(name, name.replace("-", "_")): finite(value)
        for name, value in _record(content, METRICS, MetricRecord).items()
    }


def read_round(content: RecordDict) -> int:
    """Return the round that a request is of."""
    return int(_number(_record(content, CONFIG, ConfigRecord), ROUND))


def read_request(content: RecordDict) -> tuple[dict[str, np.ndarray], int, float]:
    """Return what a server asks: the global network, the round, and μ (0 where it sends none)."""
    config = _record(content, CONFIG, ConfigRecord)
    mu = _number(config, MU) if MU in config else 0.0
    network = unpack_arrays(network_in(content))
    return network, read_round(content), float(mu)


def reason(reply: Message) -> str:
    """Return in one line why a client answers with an error."""
    return " ".join((reply.error.reason or "").split()) or f"error {reply.error.code}"


def network_in(content: RecordDict) -> ArrayRecord:
    """Return the network that a message carries."""
    return _record(content, ARRAYS, ArrayRecord)


def finite(value: object) -> object:
    """Return a figure as it is, or None for an infinity or NaN, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(content: RecordDict, key: str, kind: type[_Kind]) -> _Kind:
    """Return a message's record.

    Not `content.array_records` and its like: each of those views is a reference cycle with the
    message, which would keep its network in memory until Python's collector comes by.
    """
    record = content.get(key)
    if not isinstance(record, kind):
        raise ValueError(f"message holds {sorted(content)}, expected {key}")
    return record


def _number(record: ConfigRecord, key: str) -> int | float:
    value = record[key]
    if not isinstance(value, int | float):
        raise ValueError(f"{key}={value!r} in a message, expected a number")
    return value
