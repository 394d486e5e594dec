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
_LONG = 4
"""A signal that is so many times as long as it has channels is told from an image by that."""


def channels_first(
    array: np.ndarray, layout: str, where: str, knob: str = "data.layout"
) -> tuple[np.ndarray, str]:
    """Return a view (examples, channels, *space) of an array, and its layout.

    Args:
        array: (examples, ...), bytes or floats.
        layout: `data.layout`; with ``auto`` the shape has to tell, see `told_by_shape`.
        where: what a complaint calls the array.
        knob: where a layout is given, in a complaint.

    Raises:
        ConfigError: the layout has another number of axes; or the shape fits several, or none.
    """
    if layout == "auto":
        layout = told_by_shape(array, where, knob)
    if len(layout) != array.ndim:
        raise ConfigError(
            f"{knob}={layout} names {len(layout)} axes, but {where} is {array.dtype} "
            f"{array.shape}; name each axis"
        )
    place = layout.find("C")
    return (array[:, None] if place < 0 else np.moveaxis(array, place, 1)), layout


def told_by_shape(array: np.ndarray, where: str, knob: str) -> str:
    """Return the one layout that an array's shape and type can have, see `plausible`.

    Raises:
        ConfigError: there are several, which the line names, or none.
    """
    found = plausible(array.shape[1:], array.dtype.kind == "f")
    if len(found) == 1:
        return found[0]
    said = f"{where}, {array.dtype} {array.shape},"
    if found:
        readings = [f"{layout}: {in_words(_shape(array.shape[1:], layout))}" for layout in found]
        raise ConfigError(
            f"{said} may be {' or '.join(readings)}; say which with {knob}={'|'.join(found)}"
        )
    fitting = [layout for layout in LAYOUTS if len(layout) == array.ndim]
    if not fitting:
        raise ConfigError(
            f"{said} has no such axes: expected 1 to 3 dimensions of space for each example, with "
            "or without channels"
        )
    raise ConfigError(
        f"{said} does not tell what its axes are: expected bytes (n, H, W), floats (n, length), or "
        f"either with channels; else say it with {knob}={'|'.join(fitting)}"
    )


def plausible(shape: tuple[int, ...], floats: bool) -> list[str]:
    """Return the layouts that examples of a shape may have.

    Of images and volumes, an axis at an end is the channels if it has 1, 3 or 4 places and the
    other end has not; a last axis of one place always is. Else an end may be the channels if it
    has 2 places, or at most half as many as each other axis, as bands of a satellite have.

    Args:
        shape: of one example, as it is stored.
        floats: whether the values are floats, as those of signals are; pixels are bytes.
    """
    if len(shape) == 1:
        return ["NL"] if floats else []  # bytes are pictures, made flat
    if len(shape) == 2:
        return _signals(*shape) if floats else ["NHW"]
    if len(shape) not in (3, 4):
        return []
    space, ends = _SPACE[len(shape) - 1], (shape[0], shape[-1])
    names = [f"NC{space}", f"N{space}C"]
    told = [name for name, size in zip(names, ends, strict=True) if size in _CHANNELS]
    if ends[1] == 1 and ends[0] != 1:
        return names[1:]
    if told:
        return told
    others = min(shape[1:]), min(shape[:-1])
    found = [
        name
        for name, size, other in zip(names, ends, others, strict=True)
        if size == 2 or 2 * size <= other
    ]
    return [*found, "NDHW"] if len(shape) == 3 else found


def _signals(first: int, last: int) -> list[str]:
    """Return what floats (n, first, last) may be: signals with channels, or grey images."""
    if last == 1 or first >= _LONG * last:
        return ["NLC"]
    return ["NCL"] if first == 1 else ["NHW", "NLC", "NCL"]


def _shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return (channels, *space) of a shape in a layout."""
    sizes = dict(zip(layout[1:], shape, strict=True))
    return (sizes.pop("C", 1), *sizes.values())
