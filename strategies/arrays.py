"""NumPy's format, in which Flower's arrays travel, written and read with fewer copies.

Flower's own `Array` writes and reads it by `np.save` and `np.load`, which copy a tensor twice and
once, and read a Python literal each time: at micro-batches that is as long as some steps.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord

_MAGIC = b"\x93NUMPY\x01\x00"
_STYPE = "numpy.ndarray"
LARGE = 65_536
"""Bytes from which a copy of an array is worth avoiding."""
_place: ContextVar[memoryview | None] = ContextVar("place", default=None)
"""Where large arrays are packed: what is left of the memory there."""


@contextmanager
def packed_into(memory: memoryview | None) -> Iterator[None]:
    """Let large arrays be packed into memory, one behind the other, for as long as it has room.

    Their `data` are views of it then, which Flower's own messages don't take: for who copies them
    to other processes. Without memory they are bytes, as always.
    """
    before = _place.set(memory)
    try:
        yield
    finally:
        _place.reset(before)


def pack(values: np.ndarray) -> Array:
    """Return what `Array(values)` is, with a single copy of the values."""
    if not values.flags.c_contiguous:
        return Array(values)
    dtype, shape = values.dtype, values.shape
    data = _joined(_header(dtype, shape), values.reshape(-1).view(np.uint8).data)
    # Without `Array.__init__`, which takes longer over what it was given than all of this.
    array = Array.__new__(Array)
    array.__dict__ |= {"dtype": _name(dtype), "shape": shape, "stype": _STYPE, "data": data}
    return array


def _joined(header: bytes, values: memoryview) -> bytes | memoryview:
    memory, size = _place.get(), len(header) + len(values)
    if memory is None or not LARGE <= size <= len(memory):
        return b"".join([header, values])
    data, rest = memory[:size], memory[size:]
    data[: len(header)], data[len(header) :] = header, values
    _place.set(rest)
    return data


_name = lru_cache(str)
"""Of a type; NumPy puts it together every time."""


@lru_cache(maxsize=4096)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the beginning of NumPy's format for values in C's order."""
    file = io.BytesIO()
    described = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def unpack(array: Array) -> np.ndarray:
    """Return what `Array.numpy` returns, without a copy, and with no header read twice.

    Raises:
        ValueError: the bytes are not those of an array.
    """
    data, header = array.data, begin(array)
    layout = _layout(header) if array.stype == _STYPE and header.startswith(_MAGIC) else None
    if layout is None:
        values = array.numpy()  # refuses what is no array, objects and shapes that are none
        if not isinstance(values, np.ndarray):  # such as an archive, which NumPy opens as well
            raise ValueError(f"the bytes are a {type(values).__name__}, expected an array")
        return values
    shape, dtype = layout
    return np.frombuffer(data, dtype, offset=len(header)).reshape(shape)


def begin(array: Array) -> bytes:
    """Return the bytes before the values: two arrays that begin alike are of one type and shape."""
    data = array.data
    return bytes(data[: 10 + int.from_bytes(data[8:10], "little")])


def record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return arrays as a record of packed ones."""
    packed = ArrayRecord()
    # Not one by one: it makes the type of a function at each, to cast to, as long as `pack` takes.
    packed.__dict__["_data"] |= {name: pack(values) for name, values in arrays.items()}
    return packed


def arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Return a record's arrays, which can only be read: they are its own bytes.

    Raises:
        ValueError: the bytes of one are not those of an array.
    """
    return {name: unpack(array) for name, array in record.items()}


@lru_cache(maxsize=4096)
def _layout(header: bytes) -> tuple[tuple[int, ...], np.dtype] | None:
    """Return shape and type, as NumPy's format begins; None where NumPy has to look at the rest.

    That is a Python literal, which takes longer to read than a small layer takes to add.
    """
    read = np.lib.format.read_array_header_1_0(io.BytesIO(header[len(_MAGIC) :]))
    shape, fortran, dtype = read
    return None if fortran or dtype.hasobject or min(shape, default=0) < 0 else (shape, dtype)
