"""What every layout hands over, and the checks that all of them go through."""

import re
from dataclasses import dataclass, replace

import numpy as np
import torch

from fl.config.parsing import ConfigError, cut
from fl.data.dataset import Dataset, Split
from fl.data.formats.reading import reading
from fl.data.names import MOST_CLASSES
from fl.reproducibility.errors import as_told


@dataclass(frozen=True, eq=False)
class Part:
    """A split as it was found, not checked yet."""

    where: str
    """The file or folder that a complaint names."""
    images: np.ndarray
    """(examples, channels, *space), bytes or float32."""
    labels: np.ndarray
    """(examples,)."""
    owners: np.ndarray | None = None
    """(examples,): the name or number of each example's owner."""


@dataclass(frozen=True, eq=False)
class Found:
    """Two splits, the layout they were in, in words, and the names of the classes, if known."""

    layout: str
    train: Part
    test: Part
    classes: tuple[str, ...] | None = None


def dataset(found: Found, name: str, place: str, licence: str) -> Dataset:
    """Check what was found and make it a data set; contiguous arrays are not copied.

    Raises:
        ConfigError: counts, sizes, types or labels don't fit; the line names the file.
    """
    train, test = found.train, found.test
    for part in (train, test):
        _check_images(part)
        _check_labels(part)
    if (train.images.dtype, train.images.shape[1:]) != (test.images.dtype, test.images.shape[1:]):
        raise ConfigError(
            f"{test.where}: examples are {_kind(test)}, but in {train.where} {_kind(train)} "
            "(channels, then space); all have to be of one size and type"
        )
    classes = found.classes or _numbered(train)
    if len(classes) < 2:
        raise ConfigError(
            f"{train.where}: all examples are of the class {classes[0]!r}; a data set has two "
            "classes or more"
        )
    for part in (train, test):
        _check_range(part, len(classes))
    names, train_owners, test_owners = _owners(train, test)
    return Dataset(
        name=name,
        train=_split(train, train_owners),
        test=_split(test, test_owners),
        classes=classes,
        licence=licence,
        source=f"{found.layout}, {place}",
        domains=names,
    )


def named(classes: str) -> tuple[str, ...]:
    """Return the names of `data.classes`; numbers where it is how many there are.

    Raises:
        ConfigError: fewer than two, too many, a name twice, or one that is empty.
    """
    if not classes.strip():
        return ()
    names = tuple(name.strip() for name in classes.split(","))
    said = f"data.classes={cut(classes)}"
    if len(names) == 1 and re.fullmatch(r"[0-9]+", names[0]):
        if len(names[0]) > 9 or not 2 <= int(names[0]) <= MOST_CLASSES:
            raise ConfigError(f"{said}: expected 2 to {MOST_CLASSES:,} classes")
        return tuple(map(str, range(int(names[0]))))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise ConfigError(f"{said}: {len(names)} classes, expected 2 to {MOST_CLASSES:,}")
    if "" in names:
        raise ConfigError(f"{said}: name {names.index('') + 1} is empty; leave it out")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ConfigError(f"{said}: {twice!r} is there twice")
    return tuple(map(as_told, names))


def among(dataset: Dataset, known: tuple[str, ...]) -> Dataset:
    """Return a data set as a part of one with these classes, which it may lack.

    Classes are known by their names, so that a label is the same class on every device.

    Raises:
        ConfigError: it has another class.
    """
    place = {name: number for number, name in enumerate(known)}
    if odd := [name for name in dataset.classes if name not in place]:
        raise ConfigError(
            f"{dataset.name}: class {odd[0]!r} is not among data.classes={cut(','.join(known))}; "
            "name all classes there, in the same order for all devices"
        )
    places = torch.tensor([place[name] for name in dataset.classes])
    train, test = (
        replace(split, labels=places[split.labels]) for split in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test, classes=known)


def _split(part: Part, owners: np.ndarray | None) -> Split:
    return Split(
        torch.from_numpy(np.ascontiguousarray(part.images)),
        torch.from_numpy(part.labels.astype(np.int64)),
        None if owners is None else torch.from_numpy(owners),
    )


def _kind(part: Part) -> str:
    return f"{part.images.dtype} {part.images.shape[1:]}"


def _check_images(part: Part) -> None:
    """Refuse an empty split, values of another type, and signals with holes."""
    images = part.images
    if len(images) == 0:
        raise ConfigError(f"{part.where}: the split has no examples")
    if images.dtype not in (np.uint8, np.float32):
        raise ConfigError(
            f"{part.where}: values are {images.dtype}; save pixels as uint8, signals as float32"
        )
    if images.size == 0:
        raise ConfigError(f"{part.where}: examples of size {images.shape[1:]} hold nothing")
    with np.errstate(invalid="ignore"):  # inf - inf; the sum is finite if all float32s are
        if images.dtype == np.float32 and not np.isfinite(images.sum(dtype=np.float64)):
            raise ConfigError(f"{part.where}: values include NaN or infinity")


def _check_labels(part: Part) -> None:
    """Refuse labels that are not one whole number for each example, and owners that are not one."""
    for what, values in (("labels", part.labels), ("domains", part.owners)):
        if values is not None and values.shape != part.images.shape[:1]:
            raise ConfigError(
                f"{part.where}: {what} of shape {values.shape} for {len(part.images)} examples; "
                "expected one for each"
            )
    if part.labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{part.where}: labels are {part.labels.dtype}, expected whole numbers 0 to K-1"
        )


def _numbered(train: Part) -> tuple[str, ...]:
    """Name the classes by their numbers: all of 0 to the largest label, none missing."""
    present = np.unique(train.labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        odd = present[0] if present[0] < 0 else f"{present[-1]} but not {gaps[0]}"
        raise ConfigError(
            f"{train.where}: labels include {odd}; number the classes 0 to K-1 without gaps"
        )
    return tuple(str(label) for label in present)


def _check_range(part: Part, classes: int) -> None:
    outside = np.flatnonzero((part.labels < 0) | (part.labels >= classes))
    if len(outside):
        raise ConfigError(
            f"{part.where}: label {part.labels[outside[0]]} of example {outside[0]} is outside "
            f"0 to {classes - 1}, the classes of the training split"
        )


def _owners(
    train: Part, test: Part
) -> tuple[tuple[str, ...], np.ndarray | None, np.ndarray | None]:
    """Return the sorted names of all owners, and for each split its owners' places in there."""
    known = [part.owners for part in (train, test) if part.owners is not None]
    if not known:
        return (), None, None
    with reading(f"the domains of {train.where}"):
        values, places = np.unique(np.concatenate(known), return_inverse=True)
    names = tuple(
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in values
    )
    codes = iter(np.split(places.astype(np.int64), [len(known[0])]))
    return (
        names,
        None if train.owners is None else next(codes),
        None if test.owners is None else next(codes),
    )
