"""Files are written whole or not at all, and tensors have fingerprints."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


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
        os.unlink(temporary)
        raise


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
