"""Whether files are what they were when they were read, so that nothing old is served for new."""

import hashlib
import os
from pathlib import Path

_SPLITS = ("train", "test", "validation", "valid", "val")
_DATA = "data"
_DEEPEST = 8
"""The folders that a layout reads: those of splits, so deep, and ``data`` alone."""


def state(path: Path) -> str:
    """Return a text that differs when a file, or any file that a layout reads below, has changed.

    It has the path, size, time of change and number (inode) of each file, and reads none. It is
    empty where there is nothing. Of a folder, only those below are entered that belong to a
    layout, so that the root of a disk, given by mistake, is not searched.
    """
    if os.path.isdir(path):
        found = hashlib.sha256()
        for folder, inner, names in os.walk(path, followlinks=True):
            inside = Path(folder).relative_to(path).parts
            if not inside:
                inner[:] = [name for name in inner if name in (*_SPLITS, _DATA)]
            elif inside[0] == _DATA or len(inside) > _DEEPEST:
                inner.clear()
            inner.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                found.update(f"{file}\0{_stat(file)}\0".encode(errors="surrogateescape"))
        return found.hexdigest()
    return _stat(path)


def _stat(path: Path | str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # no such file, or no such name
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
