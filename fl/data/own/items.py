"""Data sets of PyTorch's, torchvision's and Hugging Face's, read item by item into arrays."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fl.config.parsing import ConfigError
from fl.data.formats.arrow import IMAGES, LABELS
from fl.data.formats.pixels import channels_first
from fl.data.own.inputs import as_array

Progress = Callable[[int, int], None]
_OF_MEMORY = 0.75
"""Share of this machine's memory that a data set may take."""
_QUIET_SECONDS = 10.0
"""Between two lines about how far reading is."""


def read(
    train: Any, test: Any, progress: Progress | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments with which `fl.Dataset` is made of what is read.

    Args:
        train: a map-style data set.
        test: likewise, or a share.
        progress: called with the number of items that are read, and of all.
        options: other arguments, which are passed on.

    Raises:
        ConfigError: as `Dataset.read`.
    """
    splits = {"train": _Split(train, "train")}
    if not isinstance(test, float):
        splits["test"] = _Split(test, "test")
    total = sum(split.count for split in splits.values())
    _say_size(list(splits.values()))
    told = progress or _lines()
    done = 0
    for split in splits.values():
        for _ in split.read():
            done += 1
            told(done, total)
    found: dict[str, Any] = {"train": splits["train"].pair, "test": test, **options}
    if "test" in splits:
        found["test"] = splits["test"].pair
    if splits["train"].pictures:
        found["layout"] = "NCHW"
    if found.get("classes") is None:
        found["classes"] = _classes(list(splits.values()))
    return found


class _Column:
    """The images or the labels of a split, all of one shape and type.

    Args:
        what: they are, in messages.
        count: how many come.
    """

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count = what, count
        self.plain: list = []
        self.array: np.ndarray | None = None

    def add(self, number: int, value: Any) -> None:
        """Add the value of an item; they come in order.

        Raises:
            ConfigError: its shape or type is not the first one's.
        """
        one = as_array(value, self.what)
        if one.dtype == np.float64:
            one = one.astype(np.float32)
        if one.ndim == 0:
            self.plain.append(one.item())
        if number == 0 and one.ndim:
            self.array = np.empty((self.count, *one.shape), one.dtype)
        first = () if self.array is None else self.array.shape[1:]
        if one.shape != first:
            raise ConfigError(
                f"{self.what} of item {number} has the shape {one.shape}, that of item 0 {first}; "
                "make all of one shape"
            )
        if self.array is not None:
            if one.dtype != self.array.dtype:
                raise ConfigError(
                    f"{self.what} of item {number} is {one.dtype}, that of item 0 "
                    f"{self.array.dtype}; make all of one type"
                )
            self.array[number] = one

    @property
    def values(self) -> np.ndarray:
        """All of them."""
        return np.array(self.plain) if self.array is None else self.array


class _Split:
    """A split as a map-style data set, and what was read of it.

    Args:
        data: the data set.
        name: of the split.

    Raises:
        ConfigError: it is no map-style data set, or has no items of an image and a label.
    """

    def __init__(self, data: Any, name: str) -> None:
        _check_map_style(data, name)
        self.data, self.name, self.count = data, name, len(data)
        if not self.count:
            raise ConfigError(f"{name} has no items")
        self.pictures = False
        self.images = _Column(f"{name}: the image", self.count)
        self.labels = _Column(f"{name}: the label", self.count)
        self._first = self._item(0)
        label = as_array(self._first[1], f"{name}: the label")
        self.size = self.count * (self._first[0].nbytes + label.nbytes)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The inputs and the labels."""
        return self.images.values, self.labels.values

    def read(self) -> Any:
        """Read all items; yields after each."""
        for number in range(self.count):
            image, label = self._first if number == 0 else self._item(number)
            self.images.add(number, image)
            self.labels.add(number, label)
            yield

    def _item(self, number: int) -> tuple[np.ndarray, Any]:
        """Return the image of an item as an array, and its label."""
        where = f"{self.name}, item {number}"
        item = self.data[number]
        if isinstance(item, Mapping):
            keys = [_column(item, names, where) for names in (IMAGES, LABELS)]
            image, label = (item[key] for key in keys)
        elif isinstance(item, tuple | list) and len(item) == 2:
            image, label = item
        else:
            raise ConfigError(f"{where} is {type(item).__name__}, expected (image, label)")
        if type(image).__module__.startswith("PIL."):
            self.pictures = True
            return channels_first(image, where), label
        array = as_array(image, f"{self.name}: the image of item {number}")
        if not array.ndim or array.dtype.kind not in "iuf":
            raise ConfigError(
                f"{where} has {type(image).__name__} as its image, expected an array, a tensor or "
                "a picture of Pillow's"
            )
        return array.astype(np.float32) if array.dtype == np.float64 else array, label


def _check_map_style(data: Any, name: str) -> None:
    if isinstance(data, DataLoader):
        raise ConfigError(f"{name} is a DataLoader; give the data set in it: loader.dataset")
    if isinstance(data, IterableDataset) or not (
        hasattr(data, "__len__") and hasattr(data, "__getitem__")
    ):
        raise ConfigError(
            f"{name} is {type(data).__name__}, which can't be asked for one item; give a map-style "
            "data set, which has __len__ and __getitem__, or arrays to fl.Dataset"
        )
    if isinstance(data, Mapping):
        raise ConfigError(
            f"{name} is {type(data).__name__} of {', '.join(map(str, data))}; give one of them"
        )
    if isinstance(data, Tensor | np.ndarray | tuple):
        raise ConfigError(f"{name} is {type(data).__name__}; give arrays to fl.Dataset itself")


def _column(item: Mapping, names: Sequence[str], where: str) -> str:
    """Return which of some names an item has."""
    found = next((name for name in names if name in item), None)
    if found is None:
        raise ConfigError(
            f"{where} has the columns {', '.join(map(str, item))}, and none of {', '.join(names)}: "
            "rename one"
        )
    return found


def _classes(splits: Sequence[_Split]) -> tuple[str, ...] | None:
    """Return the names of the classes, where the data sets say them; None where they don't.

    torchvision's have them as `classes`, and Hugging Face's in the features of the label.
    """
    told = []
    for split in splits:
        features = getattr(split.data, "features", None) or {}
        label = next((features[name] for name in LABELS if name in features), None)
        names = getattr(label, "names", None) or getattr(split.data, "classes", None)
        if isinstance(names, list | tuple) and names:
            told.append(tuple(map(str, names)))
    if len(set(told)) > 1:
        raise ConfigError(
            f"train has the classes {', '.join(told[0])}, and test {', '.join(told[1])}; their "
            "numbers would mean other classes"
        )
    return told[0] if told else None


def _say_size(splits: Sequence[_Split]) -> None:
    """Say how much memory the splits will take.

    Raises:
        ConfigError: that is too much for this machine.
    """
    size, most = sum(split.size for split in splits), _memory() * _OF_MEMORY
    counts = " + ".join(f"{split.count:,}" for split in splits)
    needed = f"{counts} items, as large as the first ones, take {size / 1e9:,.2f} GB of memory"
    if size > most:
        raise ConfigError(
            f"{needed}, and a data set may have {most / 1e9:,.2f} GB here; give smaller images, or "
            "fewer"
        )
    sys.stderr.write(f"reading: {needed}\n")


def _memory() -> int:
    """Return how many bytes of memory this machine has, or this container may have."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(whole, int(text)) if text.isdigit() else whole


def _lines() -> Progress:
    """Return what says how far reading is, by a line every few seconds."""
    last = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if (now := time.monotonic()) - last[0] >= _QUIET_SECONDS:
            last[0] = now
            sys.stderr.write(f"read {done:,} of {total:,}\n")

    return tell
