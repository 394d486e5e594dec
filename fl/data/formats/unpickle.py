"""Pickles read as data: arrays, numbers, text and containers; nothing that they name is called.

A pickle may name any function and have it called with arguments of its choice
(docs.python.org/3/library/pickle.html#restricting-globals). Here five names are known, those that
pickled arrays consist of, and they stand for classes of ours that only keep what they are told:
NumPy's own unpickling is not used either, because it trusts the flags of a pickled dtype.
"""

import pickle
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.reading import reading
from fl.reproducibility.machine import check_file

_WHOLE = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_ORDERS = ("<", ">", "|")


def load(file: Path) -> dict[str, object]:
    """Return the dictionary that a file holds, arrays as (read-only) arrays of whole numbers.

    Text that Python 2 pickled comes back as bytes, but for the keys.

    Raises:
        ConfigError: the file can't be read, names something else, or holds no dictionary.
    """
    check_file(file)
    with reading(str(file)), file.open("rb") as stream:
        found = _Unpickler(stream, file).load()
        if not isinstance(found, dict):
            raise ConfigError(f"{file} holds a {type(found).__name__}, expected a dictionary")
        return {
            text(key): value.values if isinstance(value, _Array) else value
            for key, value in found.items()
        }


def text(value: object) -> str:
    """Return text that may have been pickled as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


class _Dtype:
    """What a pickle says of an array's type."""

    def __init__(self, code: object, *_: object) -> None:
        self._code = text(code)
        self._order = "|"

    def __setstate__(self, state: tuple) -> None:
        self._order = text(state[1])

    @property
    def dtype(self) -> np.dtype:
        if self._code not in _WHOLE or self._order not in _ORDERS:
            raise ValueError(f"an array of {self._order}{self._code}, expected whole numbers")
        return np.dtype(self._order + self._code)


class _Array:
    """What a pickle says of an array; its bytes are looked at and not copied."""

    values: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        self.values = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, file: Path) -> None:
        super().__init__(stream, encoding="bytes")
        self._file = file

    def find_class(self, module: str, name: str) -> object:
        """Return our stand-in for a name; NumPy 2 renamed core to _core."""

        def from_buffer(raw: object, kind: _Dtype, shape: tuple, order: str, *_: object) -> _Array:
            array = _Array()
            array.__setstate__((1, shape, kind, {"C": False, "F": True}[order], raw))
            return array

        match module.replace("._core.", ".core."), name:
            case "numpy.core.multiarray", "_reconstruct":  # then filled by __setstate__
                return lambda *_: _Array()
            case "numpy.core.numeric", "_frombuffer":  # protocol 5
                return from_buffer
            case "numpy", "ndarray":  # an argument of _reconstruct
                return None
            case "numpy", "dtype":
                return _Dtype
            case "_codecs", "encode":  # how Python 3 writes bytes for Python 2: text as latin-1
                return lambda characters, _: characters.encode("latin1")
        raise ConfigError(
            f"{self._file} asks for {module}.{name}, which no data need; nothing was executed"
        )
