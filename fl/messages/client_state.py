"""A client's state between rounds: tensors in its Flower state, and a form for the disk."""

import json
from collections.abc import Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fl.messages.records import pack_arrays, pack_network, unpack_network

_OWN, VECTORS = "own", "vectors"
"""Keys: a network's tensors that stay with the client, and a strategy's vectors that do."""


def remember(state: RecordDict, tensors: Mapping[str, Tensor], key: str = _OWN) -> None:
    """Store the tensors that never leave a client in the client's state."""
    if tensors:
        state[key] = pack_network(tensors)


def remembered(state: RecordDict, key: str = _OWN) -> dict[str, Tensor]:
    """Return the tensors that `remember` stored; an empty dict before the first round."""
    if key not in state:
        return {}
    record = state[key]  # not `array_records`, which is a reference cycle
    assert isinstance(record, ArrayRecord)
    return unpack_network(record)


def pack_state(state: RecordDict) -> tuple[dict[str, np.ndarray], str]:
    """Split a client's state into numbered tensors, and JSON that holds names and the rest."""
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
    """Rebuild a client's state from what `pack_state` returned."""
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
