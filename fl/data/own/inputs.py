"""Inputs as arrays of anybody's, turned into (examples, channels, *space) of uint8 or float32."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl.config.parsing import ConfigError

LAYOUTS = ("channels-first", "channels-last", "no-channels")
"""Where an array of inputs has its channels."""
_CHANNELS = (1, 3, 4)
"""Grey, RGB and RGBA: as many channels are told from space by their number."""
_MOST_SPACE = 3


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
        layout: where the channels are; None where the shape tells, see `layout_of`.

    Raises:
        ConfigError: no examples, another shape or type, or values that are not finite.
    """
    array = as_array(values, where)
    if array.ndim < 2 or not array.size:
        raise ConfigError(
            f"{where} have the shape {array.shape}, expected (examples, channels, *space)"
        )
    array = _channels_first(_typed(array, where), where, layout or layout_of(array.shape, where))
    _check_finite(array, where)
    return as_tensor(array)


def layout_of(shape: tuple[int, ...], where: str) -> str:
    """Return the layout that an array's shape tells.

    (examples, length) has no channels. In (examples, a, b, c) and (examples, a, b, c, d) the first
    or the last axis is the channels if it has 1, 3 or 4 places and the other has not.

    Raises:
        ConfigError: the shape does not tell, and the layout has to be given.
    """
    space = len(shape) - 1
    if space == 1:
        return "no-channels"
    first, last = shape[1] in _CHANNELS, shape[-1] in _CHANNELS
    if space in (3, 4) and first != last:
        return "channels-first" if first else "channels-last"
    raise ConfigError(
        f"{where} have the shape {shape}, which does not tell channels from space: say which with "
        f"layout={' or layout='.join(map(repr, LAYOUTS))}"
    )


def _channels_first(array: np.ndarray, where: str, layout: str) -> np.ndarray:
    """Return a view (examples, channels, *space)."""
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}, expected one of {', '.join(LAYOUTS)}")
    dims = array.ndim - (1 if layout == "no-channels" else 2)
    if not 1 <= dims <= _MOST_SPACE:
        raise ConfigError(
            f"{where} have the shape {array.shape}, in which {layout} leaves {dims} dimensions of "
            f"space; expected 1 to {_MOST_SPACE}"
        )
    if layout == "no-channels":
        return array[:, None]
    return np.moveaxis(array, -1, 1) if layout == "channels-last" else array


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
