"""Inputs as arrays of anybody's, turned into (examples, channels, *space) of uint8 or float32."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl.config.parsing import ConfigError
from fl.data.own.axes import LAYOUTS, channels_first

_log = logging.getLogger("fl.data")
_SPACE = ("L", "HW", "DHW")
"""Letters for one, two and three dimensions of space."""
_OLD = {"channels-first": "NC{}", "channels-last": "N{}C", "no-channels": "N{}"}
"""Layouts as they were spelt before, with space in the braces."""
_told: set[str] = set()
"""The old spellings that this process has told already."""


def as_array(values: Any, where: str) -> np.ndarray:
    """Return what is like an array as one of NumPy's; it is copied only where it has to be.

    Raises:
        ConfigError: it is none, such as a list of arrays of several shapes.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise ConfigError(f"{where} are lists of several lengths; give one array") from None
    if array.dtype.kind == "O" and not all(isinstance(value, str) for value in array.flat):
        raise ConfigError(f"{where} are {type(values).__name__}, expected one array of numbers")
    return array


def as_tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, which shares its memory where it may be written to."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_inputs(values: Any, where: str, layout: str | None) -> Tensor:
    """Return inputs as (examples, channels, *space), bytes as they are and floats as float32.

    Args:
        values: an array, or what NumPy makes one of.
        where: what a complaint calls them.
        layout: what the axes are, as `data.layout`; None where the shape tells, by the rule of
            `fl.data.own.axes` that files go by, too.

    Raises:
        ConfigError: no examples, another shape or type, or values that are not finite.
    """
    array = as_array(values, where)
    if array.ndim < 2 or not array.size:
        raise ConfigError(
            f"{where} have the shape {array.shape}, expected (examples, channels, *space)"
        )
    array = _typed(array, where)
    named = _modern(layout, array.ndim) if layout else "auto"
    if named not in (*LAYOUTS, "auto"):
        raise ConfigError(f"layout={layout!r}, expected one of {', '.join(LAYOUTS)}")
    array, _ = channels_first(array, named, where, "layout")
    _check_finite(array, where)
    return as_tensor(array)


def _modern(layout: str, axes: int) -> str:
    """Return a layout of so many axes in the spelling of `data.layout`, and tell an old one once.

    Raises:
        ConfigError: an old one leaves none, or more than three, dimensions of space.
    """
    if layout not in _OLD:
        return layout
    dims = axes - len(_OLD[layout].format(""))
    if not 1 <= dims <= len(_SPACE):
        raise ConfigError(
            f"layout={layout!r} leaves {dims} dimensions of space in {axes} axes; expected 1 to 3"
        )
    new = _OLD[layout].format(_SPACE[dims - 1])
    if layout not in _told:
        _told.add(layout)
        _log.warning("fednf: layout=%r is now layout=%r", layout, new)
    return new


def _typed(array: np.ndarray, where: str) -> np.ndarray:
    """Return inputs as bytes or as float32."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is found with all that is
            return array.astype(np.float32, copy=False)
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{where} are {array.dtype}; give pixels as uint8, all else as float32")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise ConfigError(
            f"{where} are {array.dtype} from {low} to {high}; whole numbers are bytes here, 0 to "
            "255: give all others as float32"
        )
    return array.astype(np.uint8)


def _check_finite(array: np.ndarray, where: str) -> None:
    if array.dtype != np.float32:
        return
    for number, example in enumerate(array):
        finite = np.isfinite(example)
        if not finite.all():
            place = tuple(int(n) for n in np.argwhere(~finite)[0])
            raise ConfigError(
                f"{where} are not finite (as float32): example {number} has {example[place]} at "
                f"{place} of (channel, *space)"
            )
