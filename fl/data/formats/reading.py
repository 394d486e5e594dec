"""What may go wrong with anybody's files before a pixel is seen, as one line each."""

import importlib
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from fl.config.parsing import ConfigError, cut
from fl.reproducibility.machine import check_file, fits

EXTRA = 'install fednf with its extra "data", see README'

TESTS = ("test", "validation", "valid", "val")
"""Names of the split to test on, in the order of asking."""


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a library makes of a file's bytes into one line that names the file.

    Decoders raise nearly every kind of exception on damaged input, so all kinds are caught; keep
    the block to calls on a user's files.

    Raises:
        ConfigError: the block failed; a ConfigError from within passes as it is.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        words = (isinstance(error, OSError) and error.strerror) or str(error)
        why = " ".join(words.split()) or type(error).__name__
        raise ConfigError(f"can't read {where}: {cut(why)}") from None


def read_bytes(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises:
        ConfigError: as `check_file`, or it can't be read.
    """
    check_file(path)
    with reading(str(path)):
        return path.read_bytes()


def check_archive(file: BinaryIO, where: str, names: Collection[str] | None = None) -> None:
    """Refuse a NumPy file whose arrays memory does not hold once they are unpacked.

    The sizes are those of the archive's directory, beyond which nothing is unpacked.

    Args:
        file: open at its beginning, where it is left.
        where: its name.
        names: the arrays that are read; None: all.

    Raises:
        ConfigError: they do not fit; the line has both numbers.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)  # a single array, or nothing at all: both are told of by whoever reads
        return
    with reading(where), zipfile.ZipFile(file) as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
    file.seek(0)
    chosen = sizes.keys() if names is None else {f"{name}.npy" for name in names} & sizes.keys()
    fits(f"{where}: its arrays, unpacked, are", sum(sizes[name] for name in chosen))


def import_optional(module: str, install: str = EXTRA) -> ModuleType:
    """Import a module that only some formats need.

    Raises:
        ConfigError: it can't be imported; the line says why, and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:  # not there, or there and not fit for this NumPy
        why = " ".join(str(error).split())
        raise ConfigError(f"reading this needs {module} ({why}): {install}") from None


def test_split(splits: Collection[str], where: str) -> str:
    """Return the name of the split to test on.

    Raises:
        ConfigError: there is none, or nothing to train on.
    """
    if "train" not in splits:
        raise ConfigError(f"{where} has no train split: found {', '.join(sorted(splits))}")
    found = next((name for name in TESTS if name in splits), None)
    if found is None:
        raise ConfigError(f"{where} has no test split: expected one of {', '.join(TESTS)}")
    return found
