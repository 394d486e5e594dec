"""The attributes of a Flower strategy as arrays and JSON, so that a checkpoint can hold them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flower

from strategies import arrays as npy
from strategies.arrays import Arrays

_TEXT = "attributes.json"
"""The name under which the JSON is stored, as an array of bytes; arrays have numbers."""
_RECORDS = {"MetricRecord": MetricRecord, "ConfigRecord": ConfigRecord}
_LISTS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Attributes:
    """What the attributes of a strategy hold: numbers, texts, arrays, records, and lists of those.

    A function or a class that an attribute holds is not stored: it has to stay what it was when
    the strategy was made.

    Args:
        strategy: whose they are, as it was made.

    Raises:
        ValueError: an attribute holds something else; one line says which.
    """

    def __init__(self, strategy: flower.Strategy) -> None:
        self.strategy = strategy
        self._fixed: dict[str, Callable] = {}
        self._begun = False
        self.stored()
        self._begun = True

    def stored(self) -> dict[str, np.ndarray]:
        """Return copies of the attributes, as arrays.

        Raises:
            ValueError: an attribute can't be stored.
        """
        arrays: dict[str, np.ndarray] = {}
        plain = self._attributes(self.strategy, "", arrays)
        arrays[_TEXT] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Give the attributes what they held.

        Raises:
            ValueError: the arrays are not those of `stored`.
        """
        if _TEXT not in arrays:
            raise ValueError("the checkpoint is of another strategy")
        self._set(self.strategy, json.loads(bytes(arrays[_TEXT])), arrays)

    def _attributes(self, strategy: flower.Strategy, path: str, arrays: dict) -> dict:
        return {
            name: self._plain(value, f"{path}{name}", arrays)
            for name, value in vars(strategy).items()
        }

    def _plain(self, value: Any, path: str, arrays: dict) -> Any:
        """Return a value as JSON: plain ones as they are, all others as [kind, content]."""
        match value:
            case np.ndarray() | np.generic() if value.dtype.kind in "biuf":
                number = str(len(arrays))
                arrays[number] = np.array(value, order="C")
                return ["array" if isinstance(value, np.ndarray) else "number", number]
            case None | bool() | int() | float() | str():
                return value
            case bytes():
                return ["bytes", value.hex()]
            case Array():
                return ["Array", self._plain(npy.unpack(value), path, arrays)]
            case ArrayRecord():
                return ["ArrayRecord", self._plain(npy.arrays(value), path, arrays)]
            case MetricRecord() | ConfigRecord():
                return [type(value).__name__, self._plain(dict(value), path, arrays)]
            case list() | tuple() | set() | frozenset() if type(value).__name__ in _LISTS:
                parts = [self._plain(v, f"{path}[{n}]", arrays) for n, v in enumerate(value)]
                return [type(value).__name__, parts]
            case dict() if type(value) is dict:
                parts = [
                    [self._plain(k, path, arrays), self._plain(v, f"{path}[{k!r}]", arrays)]
                    for k, v in value.items()
                ]
                return ["dict", parts]
            case flower.Strategy():
                return ["strategy", [path, self._attributes(value, f"{path}.", arrays)]]
        return ["fixed", self._as_it_was(value, path)]

    def _as_it_was(self, value: Any, path: str) -> str:
        if not self._begun and callable(value):
            self._fixed[path] = value
        if self._fixed.get(path) is not value:
            raise ValueError(
                f"{type(self.strategy).__name__}.{path} holds a {type(value).__name__}, which a "
                "checkpoint can't keep; use numbers, texts, NumPy arrays, Flower's records, and "
                "lists and dicts of those"
            )
        return path

    def _set(self, strategy: flower.Strategy, plain: dict, arrays: Arrays) -> None:
        found = {name: self._value(value, arrays) for name, value in plain.items()}
        vars(strategy).clear()
        vars(strategy).update(found)

    def _value(self, plain: Any, arrays: Arrays) -> Any:
        """Return the value that `_plain` made JSON of."""
        if not isinstance(plain, list):
            return plain
        kind, content = plain
        match kind:
            case "array":
                return np.array(arrays[content])
            case "number":
                return arrays[content][()]
            case "bytes":
                return bytes.fromhex(content)
            case "Array":
                return npy.pack(self._value(content, arrays))
            case "ArrayRecord":
                return npy.record(self._value(content, arrays))
            case "MetricRecord" | "ConfigRecord":
                return _RECORDS[kind](self._value(content, arrays))
            case "dict":
                return {self._value(k, arrays): self._value(v, arrays) for k, v in content}
            case "strategy":
                path, attributes = content
                owner = self._find(path)
                self._set(owner, attributes, arrays)
                return owner
            case "fixed":
                return self._fixed[content]
        return _LISTS[kind](self._value(value, arrays) for value in content)

    def _find(self, path: str) -> flower.Strategy:
        found: Any = self.strategy
        for name in path.split("."):
            found = getattr(found, name)
        return found
