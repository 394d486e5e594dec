"""NumPy's format, in which Flower's arrays travel, written and read with fewer copies.

Flower's own `Array` writes and reads it by `np.save` and `np.load`, which copy a tensor twice and
once, and read a Python literal each time: at micro-batches that is as long as some steps.
"""

import io
from functools import lru_cache

import numpy as np
from flwr.app import Array

_MAGIC = b"\x93NUMPY\x01\x00"


def pack(values: np.ndarray) -> Array:
    """Return what `Array(values)` is, with a single copy of the values."""
    if not values.flags.c_contiguous:
        return Array(values)
    dtype, shape = values.dtype, values.shape
    data = b"".join([_header(dtype, shape), values.reshape(-1).view(np.uint8).data])
    return Array(_name(dtype), shape, "numpy.ndarray", data)


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
    data = array.data
    header = data[: 10 + int.from_bytes(data[8:10], "little")]
    if array.stype != "numpy.ndarray" or not header.startswith(_MAGIC):
        values = array.numpy()
        if not isinstance(values, np.ndarray):  # such as an archive, which NumPy opens as well
            raise ValueError(f"the bytes are a {type(values).__name__}, expected an array")
        return values
    shape, fortran, dtype = _layout(header)
    if fortran or dtype.hasobject or min(shape, default=0) < 0:
        return array.numpy()  # refuses objects and shapes that are none
    values = np.frombuffer(data, dtype, offset=len(header))
    return values.reshape(shape)


@lru_cache(maxsize=4096)
def _layout(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether in Fortran's order, and type, as NumPy's format begins.

    That is a Python literal, which takes longer to read than a small layer takes to add.
    """
    return np.lib.format.read_array_header_1_0(io.BytesIO(header[len(_MAGIC) :]))
