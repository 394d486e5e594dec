"""What travels between server and clients, as Flower records; the only place that knows keys.

A request carries one ArrayRecord (the global network) and one ConfigRecord (the round, and what the
strategy asks). A reply carries one ArrayRecord (the client's network) and one MetricRecord of plain
numbers. Nothing else leaves a client.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fl.provenance import code_hash

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
ROUND, MU = "server-round", "proximal-mu"
"""Flower's own names, so that its strategies and ours can be exchanged."""
WEIGHT = "num-examples"
WHO_ARE_YOU, RECALIBRATE = "query.who_are_you", "query.recalibrate"

_PARTITION, _OWN = "partition-id", "own"
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
_JOURNAL = {_PARTITION: "partition", WEIGHT: "held"}
_Kind = TypeVar("_Kind", ArrayRecord, ConfigRecord, MetricRecord)


def pack_network(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Turn a network's tensors into a record."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in state.items()})


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Turn NumPy arrays into a record."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def unpack_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Turn a record into NumPy arrays."""
    return {name: array.numpy() for name, array in record.items()}


def unpack_network(record: ArrayRecord) -> dict[str, Tensor]:
    """Turn a record into a network's tensors."""
    return {name: torch.from_numpy(array) for name, array in unpack_arrays(record).items()}


def size(record: ArrayRecord) -> int:
    """Return the bytes of a record's tensors as they travel."""
    return sum(len(array.data) for array in record.values())


def train_reply(
    state: Mapping[str, Tensor], partition: int, held: int, figures: Mapping[str, int | float]
) -> RecordDict:
    """Return what a client sends back: its network and the figures of its round.

    The weight in the mean is the number of images held, not of images seen, so that a client with
    more local epochs does not count for more.
    """
    metrics: dict[str, int | float] = {_PARTITION: partition, WEIGHT: held}
    metrics |= {name.replace("_", "-"): value for name, value in figures.items()}
    return RecordDict({ARRAYS: pack_network(state), METRICS: MetricRecord(dict(metrics))})


def remember(state: RecordDict, tensors: Mapping[str, Tensor]) -> None:
    """Keep what never leaves a client in its state, where there is any."""
    if tensors:
        state[_OWN] = pack_network(tensors)


def remembered(state: RecordDict) -> dict[str, Tensor]:
    """Return what a client has kept; nothing before its first round."""
    return unpack_network(_record(state, _OWN, ArrayRecord)) if _OWN in state else {}


def figures(content: RecordDict) -> dict:
    """Return a reply's figures under the names that the journal uses; None for one not finite."""
    return {
        _JOURNAL.get(name, name.replace("-", "_")): finite(value)
        for name, value in _record(content, METRICS, MetricRecord).items()
    }


def identity_reply(partition: int) -> RecordDict:
    """Return who a client is: its partition and the hash of the code that it runs."""
    return RecordDict({CONFIG: ConfigRecord({_PARTITION: partition, "code": code_hash()})})


def read_identity(content: RecordDict) -> tuple[int, str]:
    """Return the partition and the code hash that a client sent."""
    record = _record(content, CONFIG, ConfigRecord)
    return int(_number(record, _PARTITION)), str(record["code"])


def read_request(content: RecordDict) -> tuple[dict[str, Tensor], int, float]:
    """Return what a server asks: the global network, the round, and μ (0 where it sends none)."""
    config = _record(content, CONFIG, ConfigRecord)
    mu = _number(config, MU) if MU in config else 0.0
    network = unpack_network(network_in(content))
    return network, int(_number(config, ROUND)), float(mu)


def fault(reply: Message, like: ArrayRecord, partition: int, *, trained: bool = True) -> str | None:
    """Say in one line why a reply can't be used; None where it can.

    Used are replies with one network and one set of figures and nothing else; the network has
    exactly the tensors of `like`, by name, dtype and shape, all of them finite; the figures are
    those that our clients send, counts as whole numbers.

    Args:
        reply: what a client sent.
        like: the tensors that it should send.
        partition: the share that this client holds.
        trained: whether it should tell of its training, or of its images only.
    """
    if reply.has_error():
        return " ".join((reply.error.reason or "").split()) or f"error {reply.error.code}"
    arrays, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
    sound = isinstance(arrays, ArrayRecord) and isinstance(metrics, MetricRecord)
    if not sound or len(reply.content) != 2:
        return f"reply holds {sorted(reply.content)}, expected {ARRAYS} and {METRICS}"
    counts, measures = (_COUNTS, _MEASURES) if trained else ((), ())
    return _odd_figure(metrics, partition, counts, measures) or _odd_tensors(arrays, like)  # pyrefly: ignore


def _odd_figure(
    metrics: MetricRecord, partition: int, counts: Sequence[str], measures: Sequence[str]
) -> str | None:
    expected = {_PARTITION, WEIGHT, *counts, *measures}
    if metrics.keys() != expected:
        return f"figures {sorted(metrics.keys() ^ expected)[:3]} are missing or unknown"
    if (found := metrics[_PARTITION]) != partition:
        return f"{_PARTITION}={found!r}, expected {partition}"
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
        wanted = like[name].numpy()
        try:
            found = array.numpy()
        except Exception as error:
            return f"{name} can't be read: {' '.join(f'{type(error).__name__}: {error}'.split())}"
        if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            return f"{name} is {found.dtype} {found.shape}, expected {wanted.dtype} {wanted.shape}"
        if not np.isfinite(found).all():
            return f"{name} holds values that are not finite"
    return None


def pack_state(state: RecordDict) -> tuple[dict[str, np.ndarray], str]:
    """Split a client's state into numbered tensors and JSON for their names and all else."""
    tensors: dict[str, np.ndarray] = {}
    plain: dict[str, dict[str, object]] = {"arrays": {}, "metrics": {}, "configs": {}}
    for key, record in state.items():
        match record:
            case ArrayRecord():
                numbers = {name: str(len(tensors) + n) for n, name in enumerate(record)}
                tensors |= {number: record[name].numpy() for name, number in numbers.items()}
                plain["arrays"][key] = numbers
            case MetricRecord():
                plain["metrics"][key] = dict(record)
            case ConfigRecord():
                plain["configs"][key] = dict(record)
    return tensors, json.dumps(plain, default=lambda raw: {"bytes": raw.hex()})


def unpack_state(tensors: Mapping[str, np.ndarray], text: str) -> RecordDict:
    """Put a client's state together again."""
    plain = json.loads(text)
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for key, numbers in plain["arrays"].items():
        records[key] = pack_arrays({name: tensors[number] for name, number in numbers.items()})
    for values in plain["configs"].values():
        hexed = {key: value for key, value in values.items() if isinstance(value, dict)}
        values |= {key: bytes.fromhex(value["bytes"]) for key, value in hexed.items()}
    records |= {key: MetricRecord(values) for key, values in plain["metrics"].items()}
    records |= {key: ConfigRecord(values) for key, values in plain["configs"].items()}
    return RecordDict(records)


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
