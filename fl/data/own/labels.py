"""Labels and owners of examples, as anybody has them: numbers, names or masks."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl.config.parsing import ConfigError, cut, did_you_mean
from fl.data.names import MOST_CLASSES
from fl.data.own.inputs import as_array, as_tensor

Labels = tuple[Tensor, ...]
"""Of each split."""


def as_labels(
    splits: Sequence[Any], classes: Any, space: tuple[int, ...]
) -> tuple[Labels, tuple[str, ...]]:
    """Return the labels of splits as int64 or float32, and the names of the classes.

    One whole number an example is the class; a text is its name. All others, such as targets, zeros
    and ones for several labels, and masks, are left as they are: the task says what they mean.

    Args:
        splits: the labels of the training split, and of the test if there is one.
        classes: all names in order, or how many there are. None: of whole numbers 0 to the largest,
            all of which occur in training; of names those that occur, sorted; of masks as many as
            the largest whole number says; else a name for each number that an example has.
        space: the shape of an example without its channels, which a mask has.

    Raises:
        ConfigError: labels of another type or shape, or outside the classes.
    """
    arrays = [as_array(y, f"{name} labels") for y, name in zip(splits, _NAMES, strict=False)]
    known = _named(classes)
    if arrays[0].dtype.kind in "US" or arrays[0].dtype == object:
        known = known or tuple(sorted({_text(name) for name in arrays[0].flat}))
        arrays = [_numbered(y, known, name) for y, name in zip(arrays, _NAMES, strict=False)]
    arrays = [_typed(y, name) for y, name in zip(arrays, _NAMES, strict=False)]
    first = arrays[0]
    for array in arrays[1:]:
        if (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
            raise ConfigError(
                f"test labels are {array.dtype} {array.shape}, but those of train {first.dtype} "
                f"{first.shape}; both have to be of one kind"
            )
    if first.ndim == 1 and first.dtype == np.int64:
        known = known or _counted(first)
        for array, name in zip(arrays, _NAMES, strict=False):
            _check_range(array, len(known), name)
    known = known or tuple(map(str, range(_width(first, space))))
    return tuple(map(as_tensor, arrays)), known


_NAMES = ("train", "test")


def _named(classes: Any) -> tuple[str, ...]:
    """Return the names that were given; none where there were none."""
    if classes is None:
        return ()
    said = f"classes={cut(repr(classes))}, expected"
    if isinstance(classes, Integral) and not isinstance(classes, bool):
        if not 1 <= int(classes) <= MOST_CLASSES:
            raise ConfigError(f"{said} 1 to {MOST_CLASSES:,} of them")
        return tuple(map(str, range(int(classes))))
    if not isinstance(classes, Sequence | np.ndarray) or isinstance(classes, str | bytes):
        raise ConfigError(f"{said} a list of names, which has an order, or their number")
    names = tuple(map(_text, classes))
    if not names or len(set(names)) < len(names) or "" in names:
        raise ConfigError(f"{said} at least one name, none twice, and none empty")
    return names


def _text(name: object) -> str:
    """Return a name as text; bytes, as files of HDF5 have them, are text that was not decoded."""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _numbered(names: np.ndarray, known: tuple[str, ...], split: str) -> np.ndarray:
    """Return each name's place among those that are known."""
    places = {name: place for place, name in enumerate(known)}
    for number, name in enumerate(map(_text, names.flat)):
        if name not in places:
            raise ConfigError(
                f"{split} example {number} is of the class {name!r}, which is not among the "
                f"classes; {did_you_mean(name, known)}"
            )
    return np.array([places[_text(name)] for name in names.flat]).reshape(names.shape)


def _typed(array: np.ndarray, split: str) -> np.ndarray:
    if array.dtype.kind in "iub":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    raise ConfigError(f"{split} labels are {array.dtype}; give whole numbers, floats or names")


def _counted(labels: np.ndarray) -> tuple[str, ...]:
    """Name the classes by their numbers: all of 0 to the largest, none missing."""
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        odd = present[0] if present[0] < 0 else f"{present[-1]}, but not {gaps[0]}"
        raise ConfigError(
            f"train labels include {odd}: number the classes 0 to C-1, and where some don't occur "
            "in training say with classes=C how many there are"
        )
    return tuple(map(str, present))


def _check_range(labels: np.ndarray, classes: int, split: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ConfigError(
            f"{split} example {outside[0]} is of class {labels[outside[0]]}, but there are "
            f"{classes} classes: 0 to {classes - 1}"
        )


def _width(labels: np.ndarray, space: tuple[int, ...]) -> int:
    """Return how many numbers describe an example; of a mask, how many classes pixels have."""
    mask = labels.dtype == np.int64 and labels.shape[1:] == space
    if mask:
        return int(labels.max()) + 1
    if labels.ndim > 2:
        raise ConfigError(
            f"train labels have the shape {labels.shape}; say with classes=... how many outputs a "
            "network has for them"
        )
    return labels.shape[1] if labels.ndim == 2 else 1


def as_owners(
    splits: Sequence[Any], sizes: Sequence[int]
) -> tuple[tuple[str, ...], tuple[Tensor | None, ...]]:
    """Return the sorted names of all who own examples, and whose each example is.

    Args:
        splits: for each split the owner of each example, by a name or a number; None where they
            are not known.
        sizes: of the splits, in examples.

    Raises:
        ConfigError: not one name or number for each example.
    """
    known = {
        split: as_array(values, f"{split} domains")
        for split, values in zip(_NAMES, splits, strict=False)
        if values is not None
    }
    for (split, values), size in zip(known.items(), _sizes(splits, sizes), strict=True):
        if values.shape != (size,) or values.dtype.kind not in "iuUSO":
            raise ConfigError(
                f"{split} domains are {values.dtype} of the shape {values.shape}, expected a name "
                f"or a whole number for each of {size} examples"
            )
    if not known:
        return (), (None,) * len(splits)
    names, places = np.unique(np.concatenate(list(known.values())), return_inverse=True)
    codes = dict(zip(known, np.split(places, [len(next(iter(known.values())))]), strict=False))
    owners = (codes.get(split) for split in _NAMES[: len(splits)])
    found = (None if one is None else torch.from_numpy(one.astype(np.int64)) for one in owners)
    return tuple(map(_text, names)), tuple(found)


def _sizes(splits: Sequence[Any], sizes: Sequence[int]) -> list[int]:
    return [size for values, size in zip(splits, sizes, strict=True) if values is not None]
