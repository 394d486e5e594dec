"""Files on disk: written whole or not at all, lines of JSON, tensors and their fingerprints."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import safe_open


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that whoever opens the path, at any moment, finds the old content or the new.

    The content goes to a temporary file in the same folder, is flushed to the disk and takes the
    path's place in one step. An interruption leaves the old file.

    Raises:
        OSError: the folder can't be written to, or the disk is full; the old file is untouched.
    """
    raw = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # Ctrl-C may come just after the last step
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from locking a folder meanwhile; one that dies gives it free.

    Processes that are forked off have no part in it.

    Raises:
        BlockingIOError: another process has locked it.
    """
    handle = os.open(folder, os.O_RDONLY)
    _locks.add(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if handle in _locks:  # not in a fork, which has left it already
            _locks.remove(handle)
            os.close(handle)


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


_locks: set[int] = set()


def _leave_locks() -> None:
    """Close copies of locked handles: a lock goes with the last of them."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_leave_locks)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writes left in a folder nobody else writes to."""
    for path in folder.glob(".*-*.part"):
        path.unlink(missing_ok=True)


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over (name, dtype, shape, little-endian bytes) of arrays, in sorted name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.name}|{array.shape}|".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def append_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Append JSON lines and wait until they are on the disk; no lines make no file."""
    texts = (json.dumps(line, allow_nan=False) + "\n" for line in lines)
    if (first := next(texts, None)) is None:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(first)
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict]:
    """Read JSON lines; none where there is no file, or for a last line that is not finished.

    Raises:
        ValueError: a line is not JSON, and has an end.
    """
    if not path.exists():
        return []
    *lines, _unfinished = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: its tensors and its metadata, which may be empty."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
