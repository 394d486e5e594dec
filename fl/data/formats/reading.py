"""What may go wrong with anybody's files before a pixel is seen, as one line each."""

import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType

from fl.config.parsing import ConfigError

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
        raise ConfigError(f"can't read {where}: {why}") from None


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
