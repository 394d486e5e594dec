"""CIFAR-10 and CIFAR-100 as unpacked from their python and binary archives.

3072 bytes an image: 32x32 red, then green, then blue, row by row. The python files are pickled
dictionaries; a binary record is the label and the pixels, in CIFAR-100 the coarse label before the
fine one: cs.toronto.edu/~kriz/cifar.html. CIFAR-100 is read with its fine labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats import unpickle
from fl.data.formats.parts import Found, Part
from fl.data.formats.reading import read_bytes, reading
from fl.reproducibility.machine import check_file

_IMAGE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Kind:
    """The files of one archive, and how they are read."""

    words: str
    train: tuple[str, ...]
    test: str
    names: str
    batch: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    classes: Callable[[Path], tuple[str, ...]]


def holds(path: Path) -> bool:
    """Whether a folder has the files of one of the four archives."""
    return any(_there(path, kind) for kind in _KINDS)


def read(path: Path) -> Found:
    """Read all batches of an archive; names of classes where their file is there."""
    kind = next(kind for kind in _KINDS if _there(path, kind))
    names = path / kind.names
    return Found(
        kind.words,
        _part(path, kind.train, kind),
        _part(path, (kind.test,), kind),
        kind.classes(names) if names.is_file() else None,
    )


def _there(path: Path, kind: _Kind) -> bool:
    return any((path / name).is_file() for name in (*kind.train, kind.test))


def _part(path: Path, files: tuple[str, ...], kind: _Kind) -> Part:
    images, labels = zip(*(kind.batch(path / name) for name in files), strict=True)
    pixels = np.concatenate(images)  # the one copy
    where = str(path / files[0]) if len(files) == 1 else f"{path / files[0]} to {files[-1]}"
    return Part(where, pixels.reshape(-1, *_IMAGE), np.concatenate(labels))


def _pickled(key: str) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    def batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
        held = unpickle.load(file)
        with reading(str(file)):
            images, labels = (np.asarray(held.get(name)) for name in ("data", key))
        if images.dtype != np.uint8 or images.shape[1:] != (_PIXELS,):
            raise ConfigError(
                f"{file}: data are {images.dtype} {images.shape}, expected uint8 (n, {_PIXELS})"
            )
        if labels.shape != images.shape[:1]:
            raise ConfigError(f"{file}: {key} of shape {labels.shape} for {len(images)} images")
        return images, labels

    return batch


def _pickled_names(key: str) -> Callable[[Path], tuple[str, ...]]:
    def names(file: Path) -> tuple[str, ...]:
        held = unpickle.load(file).get(key)
        if not isinstance(held, list):
            raise ConfigError(f"{file} has no list {key}")
        return tuple(unpickle.text(name) for name in held)

    return names


def _records(label_bytes: int) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    def batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
        check_file(file)
        with reading(str(file)):
            raw = np.fromfile(file, np.uint8)
        if len(raw) % (label_bytes + _PIXELS):
            raise ConfigError(
                f"{file}: {len(raw)} bytes are no whole number of records of "
                f"{label_bytes + _PIXELS} bytes; is it cut off?"
            )
        records = raw.reshape(-1, label_bytes + _PIXELS)
        return records[:, label_bytes:], records[:, label_bytes - 1]

    return batch


def _lines(file: Path) -> tuple[str, ...]:
    raw = read_bytes(file)
    with reading(str(file)):
        return tuple(raw.decode().split())


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_KINDS = (
    _Kind(
        "CIFAR-10 python batches", _BATCHES, "test_batch",
        "batches.meta", _pickled("labels"), _pickled_names("label_names"),
    ),
    _Kind(
        "CIFAR-10 binary batches", tuple(f"{name}.bin" for name in _BATCHES), "test_batch.bin",
        "batches.meta.txt", _records(1), _lines,
    ),
    _Kind(
        "CIFAR-100 python batches", ("train",), "test",
        "meta", _pickled("fine_labels"), _pickled_names("fine_label_names"),
    ),
    _Kind(
        "CIFAR-100 binary batches", ("train.bin",), "test.bin",
        "fine_label_names.txt", _records(2), _lines,
    ),
)  # fmt: skip
