"""What travels between server and clients, as Flower records; the only place that knows keys.

A request carries one ArrayRecord (the global network) and one ConfigRecord (the round, what the
strategy asks, and whether to measure signals). A reply carries one ArrayRecord (the client's
network) and one MetricRecord of plain numbers, and where it is asked for them a second one of
signals: a number per layer and figure. Nothing else leaves a client.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from strategies import npy

ARRAYS, CONFIG, METRICS, SIGNALS = "arrays", "config", "metrics", "signals"
ROUND, MU, CLIP = "server-round", "proximal-mu", "clipping_norm"
"""Flower's own names, so that its strategies and ours can be exchanged."""
MEASURE = "measure-signals"
WEIGHT, PARTITION = "num-examples", "partition-id"
WHO_ARE_YOU, RECALIBRATE = "query.who_are_you", "query.recalibrate"

_COUNTS = (
    "batch-size",
    "epochs",
    "examples",
    "steps",
    "single-value-steps",
    "held-out",
    "global-correct",
    "personal-correct",
)
_RIGHT = ("global-correct", "personal-correct")
_MEASURES = ("loss", "gradient-norm", "update-norm", "seconds")
_IMAGES = "images"
_LAYER = ("acsm", "acv", "gradient-acsm", "gradient-acv", "branch-acv", "dead")
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
    signals: "Signals | None" = None,
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
        record: dict = {_IMAGES: signals.images, **dict(zip(_LAYER, columns, strict=True))}
        content[SIGNALS] = MetricRecord(record)
    return content


@dataclass(frozen=True)
class Signals:
    """What was measured of a network in one batch."""

    images: int
    """In the batch."""
    figures: np.ndarray
    """(layers, 6): of each layer, in order of execution, the figures of `fl.nn.probes.Layer` in its
    order; NaN where it has none."""


def signals(content: RecordDict) -> Signals:
    """Return the signals in a reply that has them."""
    record = _record(content, SIGNALS, MetricRecord)
    return Signals(int(record[_IMAGES]), np.array([record[key] for key in _LAYER]).T)  # pyrefly: ignore


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


def fault(
    reply: Message,
    like: ArrayRecord,
    partition: int,
    *,
    trained: bool = True,
    layers: int | None = None,
) -> str | None:
    """Say in one line why a reply can't be used; None where it can.

    Used are replies with one network, one set of figures, the signals if they were asked for, and
    nothing else; the network has exactly the tensors of `like`, by name, dtype and shape, all of
    them finite; the figures are those that our clients send, counts as whole numbers.

    Args:
        reply: what a client sent.
        like: the tensors that it should send.
        partition: the share that this client holds.
        trained: whether it should tell of its training, or of its images only.
        layers: of how many layers it should bring signals; None: of none.
    """
    if reply.has_error():
        return reason(reply)
    arrays, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
    kinds = {ARRAYS: ArrayRecord, METRICS: MetricRecord}
    kinds |= {} if layers is None else {SIGNALS: MetricRecord}
    if {key: type(record) for key, record in reply.content.items()} != kinds:
        return f"reply holds {sorted(reply.content)}, expected {' and '.join(kinds)}"
    counts, measures = (_COUNTS, _MEASURES) if trained else ((), ())
    odd = _odd_figure(metrics, partition, counts, measures) or _odd_tensors(arrays, like)  # pyrefly: ignore
    return odd or (None if layers is None else _odd_signals(reply.content, layers))


def reason(reply: Message) -> str:
    """Return in one line why a client answers with an error."""
    return " ".join((reply.error.reason or "").split()) or f"error {reply.error.code}"


def _odd_signals(content: RecordDict, layers: int) -> str | None:
    record = _record(content, SIGNALS, MetricRecord)
    if record.keys() != (expected := {_IMAGES, *_LAYER}):
        return f"signals {sorted(record.keys() ^ expected)[:3]} are missing or unknown"
    images, held = record[_IMAGES], figures(content)["held"]
    if not isinstance(images, int) or not 1 <= images <= held:
        return f"signals: {_IMAGES}={images!r}, expected a whole number from 1 to {held}"
    for key in _LAYER:
        values = record[key]
        if not isinstance(values, list) or len(values) != layers:
            found = f"{len(values)} values" if isinstance(values, list) else repr(values)
            return f"signals: {key} is {found}, expected {layers} numbers"
        most = 1 if key == "dead" else math.inf
        if odd := [v for v in values if v < 0 or v > most]:  # NaN stands for what there is not
            return f"signals: {key}={odd[0]:g}, expected a number from 0 to {most:g}"
    return None


def _odd_figure(
    metrics: MetricRecord, partition: int, counts: Sequence[str], measures: Sequence[str]
) -> str | None:
    expected = {PARTITION, WEIGHT, *counts, *measures}
    if metrics.keys() != expected:
        return f"figures {sorted(metrics.keys() ^ expected)[:3]} are missing or unknown"
    if (found := metrics[PARTITION]) != partition:
        return f"{PARTITION}={found!r}, expected {partition}"
    for name, least in {WEIGHT: 1, **dict.fromkeys(counts, 0)}.items():
        value = metrics[name]
        if not isinstance(value, int) or value < least:
            return f"{name}={value!r}, expected a whole number from {least} up"
    for name in _RIGHT if counts else ():
        if metrics[name] > metrics["held-out"]:  # pyrefly: ignore
            return f"{name}={metrics[name]} is more than held-out={metrics['held-out']}"
    for name in measures:
        if not isinstance(metrics[name], int | float):
            return f"{name}={metrics[name]!r}, expected a number"
    return None


def _odd_tensors(arrays: ArrayRecord, like: ArrayRecord) -> str | None:
    if arrays.keys() != like.keys():
        return f"tensors {sorted(arrays.keys() ^ like.keys())[:3]} are missing or unknown"
    for name, array in arrays.items():
        try:
            found = npy.unpack(array)
        except Exception as error:
            return f"{name} can't be read: {' '.join(f'{type(error).__name__}: {error}'.split())}"
        if npy.begin(array) != npy.begin(like[name]):
            wanted = npy.unpack(like[name])
            if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
                return (
                    f"{name} is {found.dtype} {found.shape}, expected {wanted.dtype} {wanted.shape}"
                )
        if not np.isfinite(found).all():
            return f"{name} holds values that are not finite"
    return None


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
