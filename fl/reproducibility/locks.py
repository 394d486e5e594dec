"""Locks on folders: one process at a time writes to a folder, and others can tell who does."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOLDER = ".held-by"
"""The file in a locked folder that says who has locked it; one that was killed leaves it."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from locking a folder meanwhile; one that dies gives it free.

    Processes that are forked off have no part in it.

    Raises:
        BlockingIOError: another process has locked it.
    """
    handle = keep(os.open(folder, os.O_RDONLY))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        unlock(handle)


def held(folder: Path) -> bool:
    """Return whether a process has locked a folder.

    To find out, this locks the folder for a moment, together with others that do the same. Whoever
    wants a lock has to try for longer than that moment.

    Raises:
        OSError: there is no such folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def sign(folder: Path) -> None:
    """Say in a folder that this process has locked it, if there is a place to say so."""
    with suppress(OSError):
        (folder / HOLDER).write_text(f"process {os.getpid()} of {platform.node()}", "utf-8")


def holder(folder: Path) -> str:
    """Return in words which process has locked a folder, by what it says there."""
    try:
        text = (folder / HOLDER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return " ".join(text[:200].split()) or "another process"  # it may be about to say so


_locks: set[int] = set()


def keep(handle: int) -> int:
    """Note down a handle that is, or will be, locked by this process and not by its forks."""
    _locks.add(handle)
    return handle


def unlock(handle: int) -> None:
    """Close a handle from `keep`, unless this is a fork, which has left it already."""
    if handle in _locks:
        _locks.remove(handle)
        os.close(handle)


def _leave_locks() -> None:
    """Close copies of locked handles: a lock goes with the last of them."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_leave_locks)
