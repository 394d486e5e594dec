"""Temporary folders; and what killed makers left, of files too, which the next start removes."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fl.reproducibility import locks
from fl.reproducibility.files import PART, lived

MAKING = ".fednf-"
"""How the names of temporary folders begin."""


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a folder that is removed at the end; if this process is killed, by `remove_leftovers`.

    Args:
        parent: where to make it.
        prefix: of its name; `MAKING`, for `remove_leftovers`, and what it is for.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        made = tempfile.mkdtemp(dir=parent, prefix=prefix)
        handle = locks.keep(os.open(made, os.O_RDONLY))
        if lived(handle, made):
            break
        locks.unlock(handle)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        locks.unlock(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders right below a folder whose makers were killed.

    They are locked as long as their maker lives. Those of other users stay.
    """
    for path in (*folder.glob(f".*-*{PART}"), *folder.glob(f"{MAKING}*")):
        with suppress(OSError):  # it is gone by now, or can't be opened
            if path.lstat().st_uid == os.getuid() and not path.is_symlink():
                _remove_orphan(path)


def _remove_orphan(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
