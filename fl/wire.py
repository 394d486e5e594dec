"""What travels between server and clients, as Flower records; the only place that knows keys.

A request carries one ArrayRecord (the global network) and one ConfigRecord (the round, and what the
strategy asks). A reply carries one ArrayRecord (the client's network) and one MetricRecord of plain
numbers. Nothing else leaves a client.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fl.provenance import code_hash

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
ROUND, MU = "server-round", "proximal-mu"
"""Flower's own names, so that its strategies and ours can be exchanged."""
WEIGHT = "num-examples"
WHO_ARE_YOU = "query.who_are_you"

_JOURNAL = {"partition-id": "partition", WEIGHT: "held"}


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
    metrics: dict[str, int | float] = {"partition-id": partition, WEIGHT: held}
    metrics |= {name.replace("_", "-"): value for name, value in figures.items()}
    return RecordDict({ARRAYS: pack_network(state), METRICS: MetricRecord(dict(metrics))})


def figures(content: RecordDict) -> dict:
    """Return a reply's figures under the names that the journal uses."""
    record = content.metric_records[METRICS]
    return {_JOURNAL.get(name, name.replace("-", "_")): value for name, value in record.items()}


def identity_reply(partition: int) -> RecordDict:
    """Return who a client is: its partition and the hash of the code that it runs."""
    return RecordDict({CONFIG: ConfigRecord({"partition-id": partition, "code": code_hash()})})


def read_identity(content: RecordDict) -> tuple[int, str]:
    """Return the partition and the code hash that a client sent."""
    record = content.config_records[CONFIG]
    return int(_number(record, "partition-id")), str(record["code"])


def read_request(content: RecordDict) -> tuple[dict[str, Tensor], int, float]:
    """Return what a server asks: the global network, the round, and μ (0 where it sends none)."""
    config = content.config_records[CONFIG]
    mu = _number(config, MU) if MU in config else 0.0
    network = unpack_network(content.array_records[ARRAYS])
    return network, int(_number(config, ROUND)), float(mu)


def fault(reply: Message, like: ArrayRecord) -> str | None:
    """Say in one line why a reply to a training request can't be used; None where it can.

    Used are replies with exactly the tensors of `like`, by name, dtype and shape, all of them
    finite, and a weight that is finite and positive.
    """
    if reply.has_error():
        return reply.error.reason or f"error {reply.error.code}"
    arrays, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
    if not (isinstance(arrays, ArrayRecord) and isinstance(metrics, MetricRecord)):
        return f"reply holds {sorted(reply.content)}, expected {ARRAYS} and {METRICS}"
    weight = metrics.get(WEIGHT)
    if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        return f"{WEIGHT}={weight!r}, expected a positive number"
    if arrays.keys() != like.keys():
        return f"tensors {sorted(arrays.keys() ^ like.keys())[:3]} are missing or unknown"
    for name, array in arrays.items():
        expected = like[name]
        if (array.dtype, tuple(array.shape)) != (expected.dtype, tuple(expected.shape)):
            found, wanted = f"{array.dtype} {array.shape}", f"{expected.dtype} {expected.shape}"
            return f"{name} is {found}, expected {wanted}"
        if not np.isfinite(array.numpy()).all():
            return f"{name} holds values that are not finite"
    return None


def pack_state(state: RecordDict) -> tuple[dict[str, np.ndarray], str]:
    """Split a client's state into tensors, named RECORD/TENSOR, and JSON for all other records."""
    tensors = {
        f"{key}/{name}": array.numpy()
        for key, record in state.array_records.items()
        for name, array in record.items()
    }
    plain = {
        "arrays": {key: list(record) for key, record in state.array_records.items()},
        "metrics": {key: dict(record) for key, record in state.metric_records.items()},
        "configs": {key: dict(record) for key, record in state.config_records.items()},
    }
    return tensors, json.dumps(plain)


def unpack_state(tensors: Mapping[str, np.ndarray], text: str) -> RecordDict:
    """Put a client's state together again."""
    plain = json.loads(text)
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for key, names in plain["arrays"].items():
        records[key] = pack_arrays({name: tensors[f"{key}/{name}"] for name in names})
    records |= {key: MetricRecord(values) for key, values in plain["metrics"].items()}
    records |= {key: ConfigRecord(values) for key, values in plain["configs"].items()}
    return RecordDict(records)


def _number(record: ConfigRecord, key: str) -> int | float:
    value = record[key]
    if not isinstance(value, int | float):
        raise ValueError(f"{key}={value!r} in a message, expected a number")
    return value
