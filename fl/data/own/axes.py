"""What the axes of an array of examples are: told by a layout, or by the shape where it can be.

A layout has a letter for each axis: N examples, C channels, and L, HW or DHW for space. A shape
with several plausible layouts is refused, since each of them trains and only one is right.
"""

from typing import get_args

import numpy as np

from fl.config import Layout
from fl.config.parsing import ConfigError
from fl.data.dataset import in_words

LAYOUTS: tuple[str, ...] = tuple(name for name in get_args(Layout) if name != "auto")
_SPACE = {1: "L", 2: "HW", 3: "DHW"}
_CHANNELS = (1, 3, 4)
"""Grey, RGB and RGBA: numbers of channels that images come with."""
_FEW = 4
"""An axis of so few places, or of fewer, may be channels before space."""
_LONG = 4
"""A signal that is so many times as long as it has channels is told from an image by that."""


def channels_first(array: np.ndarray, layout: str, where: str) -> tuple[np.ndarray, str]:
    """Return a view (examples, channels, *space) of an array, and its layout.

    Args:
        array: (examples, ...), bytes or floats.
        layout: `data.layout`; with ``auto`` the shape has to tell.
        where: what a complaint calls the array.

    Raises:
        ConfigError: the layout has another number of axes; or the shape fits several, or none.
    """
    if layout == "auto":
        layout = _told_by_shape(array, where)
    if len(layout) != array.ndim:
        raise ConfigError(
            f"data.layout={layout} names {len(layout)} axes, but {where} is {array.dtype} "
            f"{array.shape}; name each axis"
        )
    place = layout.find("C")
    return (array[:, None] if place < 0 else np.moveaxis(array, place, 1)), layout


def _told_by_shape(array: np.ndarray, where: str) -> str:
    """Return the one layout that a shape can have.

    Raises:
        ConfigError: there are several, which the line names, or none.
    """
    found = plausible(array.shape[1:], array.dtype.kind == "f")
    if not found:
        raise ConfigError(
            f"{where} is {array.dtype} {array.shape}; expected {array.dtype} (n, H, W) or "
            "(n, D, H, W), or these with channels, or float32 (n, length) or "
            "(n, length, channels)"
        )
    if len(found) > 1:
        readings = [f"{layout}: {in_words(_shape(array.shape[1:], layout))}" for layout in found]
        raise ConfigError(
            f"{where} is {array.dtype} {array.shape}, which may be {' or '.join(readings)}; say "
            f"which with data.layout={'|'.join(found)}"
        )
    return found[0]


def plausible(shape: tuple[int, ...], floats: bool) -> list[str]:
    """Return the layouts that examples of a shape may have.

    Args:
        shape: of one example, as it is stored.
        floats: whether the values are floats, as those of signals are; pixels are bytes.
    """
    if len(shape) == 1:
        return ["NL"] if floats else []
    if len(shape) == 2:
        return _signals(*shape) if floats else ["NHW"]
    if len(shape) not in (3, 4):
        return []
    space, first, last = _SPACE[len(shape) - 1], shape[0], shape[-1]
    leads, ends = f"NC{space}", f"N{space}C"
    if last == 1 and first != 1:
        return [ends]
    found = [leads] if first <= _FEW else []
    found += [ends] if last in _CHANNELS else []
    bare = len(shape) == 3 and ends not in found
    return [*found, "NDHW"] if bare else found


def _signals(first: int, last: int) -> list[str]:
    """Return what floats (n, first, last) may be: signals with channels, or grey images."""
    if last == 1 or first >= _LONG * last:
        return ["NLC"]
    return ["NCL"] if first == 1 else ["NHW", "NLC", "NCL"]


def _shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return (channels, *space) of a shape in a layout."""
    sizes = dict(zip(layout[1:], shape, strict=True))
    return (sizes.pop("C", 1), *sizes.values())
