"""`fl.Dataset`: a data set from arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl.config.parsing import ConfigError, Value
from fl.data import dataset
from fl.data.dataset import Split
from fl.data.own import keeping
from fl.data.own.inputs import as_inputs
from fl.data.own.labels import as_labels, as_owners
from fl.reproducibility.seeds import stream

Pair = tuple[Any, Any]
"""Inputs and labels."""


class Dataset(dataset.Dataset):
    """A data set in memory, made from arrays of NumPy or PyTorch.

    Inputs are (examples, channels, *space) with 1 to 3 dimensions of space. uint8 stays as it is,
    and so do whole numbers that fit; floats become float32. Arrays that need no change are not
    copied, so leave them as they are. A network gets (x - mean) / std by the training split's own
    mean and standard deviation of each channel.

    Args:
        train: inputs and labels. One whole number or one name for an example is its class. Labels
            of all other kinds, such as floats or masks, are kept for the task.
        test: inputs and labels of the server's test; or the share of the training examples that
            is taken for it, of each class alike, the same ones every time.
        classes: their names in order, or how many there are. None: they are counted.
        domains: the owners of the training and of the test examples (or None), for
            `partition.kind=natural`: a name or a whole number for each example.
        name: what reports and messages call the data set.
        layout: what the axes of the inputs are, in the letters of the knob `data.layout`, such
            as "NCHW" or "NHW". It is needed where the shape does not tell.

    Raises:
        ConfigError: arrays that don't fit together, or that nothing can be trained on.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 2
        >>> Dataset((images, labels), test=0.2, classes=["cat", "dog"], layout="NHW").form
        Form(shape=(1, 28, 28), classes=2)
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        classes: Any = None,
        domains: Any = None,
        name: str = "own data",
        layout: str | None = None,
    ) -> None:
        given = [_pair(train, "train")]
        if not isinstance(test, float):
            given.append(_pair(test, "test"))
        inputs = _inputs([x for x, _ in given], layout)
        labels, names = as_labels([y for _, y in given], classes, tuple(inputs[0].shape[2:]))
        owners = (None, None) if domains is None else domains
        if not isinstance(owners, tuple | list) or len(owners) != 2:
            raise ConfigError("domains should be (those of train, those of test), or these None")
        sizes = [len(x) for x in inputs]
        whose, owned = as_owners(owners[: len(given)], sizes)
        splits = list(map(Split, inputs, labels, owned))
        for split, size, word in zip(splits, sizes, ("train", "test"), strict=False):
            if len(split) != size:
                raise ConfigError(f"{word} has {size} inputs and {len(split)} labels")
        if isinstance(test, float):
            splits = [splits[0].only(places) for places in _parted(labels[0], test)]
        super().__init__(
            name=name,
            train=splits[0],
            test=splits[1],
            classes=names,
            licence="unknown: your own data",
            source="an object of Python's",
            domains=whose,
        )

    @classmethod
    def read(
        cls,
        train: Any,
        test: Any,
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> "Dataset":
        """Read map-style data sets of PyTorch's, torchvision's or Hugging Face's into memory, once.

        An item is (image, label), or a table with the columns image and label; an image is an
        array, a tensor or a picture of Pillow's. Random transforms are drawn once, here, and so
        they are better left to `data.augment`. One line on stderr says how much memory it takes.

        Args:
            train: has `__len__` and `__getitem__`.
            test: likewise; or the share of the training examples that is taken for it.
            progress: called with how many items are read, and of how many; None: lines on stderr.
            options: `classes` (None: those that the data set names), `domains`, `name`, `layout`.

        Raises:
            ConfigError: it is no such data set, its items differ in shape, or they would not fit
                into the memory of this machine.
        """
        from fl.data.own import items

        return cls(**items.read(train, test, progress, options))

    def keep(self) -> str:
        """Keep the data set in the user's cache; returns its name, which knobs take.

        The name is ``kept:SHA256`` over all that it holds. A data set that is kept already is not
        written again.

        Raises:
            OSError: the cache can't be written to, or the disk is full.
        """
        return keeping.keep(self)


def made(where: str, found: object, options: Mapping[str, Value]) -> dataset.Dataset:
    """Return the data set that a user's component is, or that it returns when it is called.

    Args:
        where: what a complaint calls it.
        found: a `Dataset`, or a function of options.
        options: what the function is called with.

    Raises:
        ConfigError: it is, or returns, anything else.
    """
    returned = "is"
    if callable(found):
        found, returned = found(**options), "returned"
    if not isinstance(found, dataset.Dataset):
        raise ConfigError(
            f"{where} {returned} {type(found).__name__}, expected a fl.Dataset, or a function that "
            "returns one"
        )
    return found


def _pair(split: Any, name: str) -> Pair:
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ConfigError(
            f"{name} is {type(split).__name__}, expected (inputs, labels); fl.Dataset.read reads a "
            "data set of PyTorch's"
        )
    return split[0], split[1]


def _inputs(splits: Sequence[Any], layout: str | None) -> list[Tensor]:
    """Return the inputs of all splits, which have one layout."""
    names = ("train inputs", "test inputs")
    found = [as_inputs(x, name, layout) for x, name in zip(splits, names, strict=False)]
    kinds = [f"{x.dtype} of the shape {tuple(x.shape[1:])}".removeprefix("torch.") for x in found]
    if len(set(kinds)) > 1:
        raise ConfigError(
            f"test inputs are {kinds[1]} (channels, *space), but those of train {kinds[0]}; both "
            "have to be alike"
        )
    return found


def _parted(labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the places of the examples to train on and of the others, each sorted.

    Where labels are classes, `share` of each class is taken, rounded; else of all examples.
    """
    if not 0 < share < 1:
        raise ConfigError(f"test={share}, expected (inputs, labels), or a share between 0 and 1")
    rng, count = stream(0, "own data", "test"), len(labels)
    classes = labels.ndim == 1 and not labels.is_floating_point()
    groups = labels.numpy() if classes else np.zeros(count, np.int64)
    tested = np.zeros(count, bool)
    for group in np.unique(groups):
        places = rng.permutation(np.flatnonzero(groups == group))
        tested[places[: round(share * len(places))]] = True
    if not 0 < tested.sum() < count:
        raise ConfigError(f"test={share} of {count} examples leaves a split with none")
    return torch.from_numpy(np.flatnonzero(~tested)), torch.from_numpy(np.flatnonzero(tested))
