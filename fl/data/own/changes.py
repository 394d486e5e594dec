"""Whether files are what they were when they were read, so that nothing old is served for new."""

import hashlib
import os
from pathlib import Path


def state(path: Path) -> str:
    """Return a text that differs when a file, or any file below a folder, has changed.

    It has the path, size, time of change and number (inode) of each file, and reads none. It is
    empty where there is nothing.
    """
    if path.is_dir():
        found = hashlib.sha256()
        for folder, inner, names in os.walk(path, followlinks=True):
            inner.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                found.update(f"{file}\0{_stat(file)}\0".encode(errors="surrogateescape"))
        return found.hexdigest()
    return _stat(path)


def _stat(path: Path | str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
