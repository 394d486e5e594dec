"""Files on disk: written whole or not at all, and checked when they are read.

A JSON file and a safetensors file have a *seal* at a fixed place: the SHA-256 of the file's bytes
with zeros in the place of the seal. Lines of JSON have *links*, as their last key: the SHA-256 of
the link before and the line, of which 16 digits are kept. So one line that is edited, gone, or in
another place is found, and so is every bit of a sealed file. Files of earlier versions have none
of it and are read all the same.
"""

import base64
import fcntl
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from safetensors.numpy import save

from fl.reproducibility.errors import ConfigError, cut

PART = ".part"
"""How the names of temporary files end."""
SEAL, LINK = "file_sha256", "link"
"""The keys of a file's seal and of a line's link."""
BLANK = b"0" * 64
JSON_BEGINS = f'{{\n "{SEAL}": "'.encode()
TENSORS_BEGIN = f'{{"__metadata__":{{"{SEAL}":"'.encode()
"""How sealed files begin; the seal follows. Before tensors there are 8 bytes of length."""


def at_home(text: str | Path) -> Path:
    """Return a path, in which ``~`` or ``~user`` at its beginning is a home.

    Raises:
        ConfigError: nobody of that name has a home on this machine.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = Path(text).parts[0]
        raise ConfigError(f"{cut(text)}: {user} is nobody's home on this machine") from None


def is_there(path: Path) -> bool:
    """Whether something is at a path, which may be a link to nowhere.

    Raises:
        ConfigError: that can't be found out.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't look at {cut(path)}: {why}") from None
    return True


def write_whole(path: Path, *content: bytes | memoryview | str) -> None:
    """Write a file so that whoever opens the path, at any moment, finds the old content or the new.

    The content goes to a temporary file in the same folder, is flushed to the disk and takes the
    path's place in one step. An interruption leaves the old file.

    Args:
        path: its folder is made.
        content: the parts of the file, one after another.

    Raises:
        OSError: the folder can't be written to, or the disk is full; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _temporary_file(path.parent, f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(part.encode() if isinstance(part, str) else part for part in content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # Ctrl-C may come just after the last step
        raise


def _temporary_file(folder: Path, prefix: str) -> tuple[int, str]:
    """Make a temporary file that is locked while its maker lives; returns its handle and path."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=PART)
        if lived(handle, temporary):
            return handle, temporary
        os.close(handle)


def lived(handle: int, path: str) -> bool:
    """Lock a new file or folder; return whether nobody took it for an orphan just before."""
    with suppress(OSError):  # a file system without locks, where nobody finds orphans either
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over (name, dtype, shape, little-endian bytes) of arrays, in sorted name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.name}|{array.shape}|".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file with a seal, whole or not at all; content that was read has an old one."""
    blank = {SEAL: BLANK.decode()}
    raw = (json.dumps(blank | dict(content) | blank, indent=1) + "\n").encode()
    place = len(JSON_BEGINS)
    write_whole(path, raw[:place], hashlib.sha256(raw).hexdigest(), raw[place + len(BLANK) :])


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], told: Mapping[str, str]) -> None:
    """Write a safetensors file with a seal in its metadata, whole or not at all.

    The same tensors and metadata give the same bytes, which safetensors does not promise.

    Args:
        path: of the file.
        tensors: by name.
        told: the metadata beside the seal.
    """
    raw = save(dict(tensors))
    begin = 8 + int.from_bytes(raw[:8], "little")
    about = json.dumps({SEAL: BLANK.decode(), **told}, separators=(",", ":")).encode()
    rest = raw[8:begin].strip().removeprefix(b"{")
    header = b'{"__metadata__":' + about + (b"" if rest == b"}" else b",") + rest
    header += b" " * (-len(header) % 8)  # tensors are aligned
    head, body = len(header).to_bytes(8, "little") + header, memoryview(raw)[begin:]
    place, digest = 8 + len(TENSORS_BEGIN), hashlib.sha256(head)
    digest.update(body)
    write_whole(path, head[:place], digest.hexdigest(), head[place + len(BLANK) :], body)


class Mark(NamedTuple):
    """How far a file of lines goes."""

    lines: int
    link: str
    """That of the last line."""


NOTHING = Mark(0, "")
"""The end of a file without lines."""


def append_lines(path: Path, lines: Iterable[Mapping[str, object]], mark: Mark = NOTHING) -> Mark:
    """Append JSON lines and wait until they are on the disk; no lines make no file.

    Args:
        path: of the file.
        lines: each gets a link as its last key.
        mark: the end of the file as it is.

    Returns:
        Its new end.
    """
    texts = (json.dumps(line, allow_nan=False) for line in lines)
    if (first := next(texts, None)) is None:
        return mark
    with path.open("a", encoding="utf-8") as file:
        for text in itertools.chain([first], texts):
            mark = Mark(mark.lines + 1, link_of(mark.link, text))
            file.write(f'{text[:-1]}, "{LINK}": "{mark.link}"}}\n')
        file.flush()
        os.fsync(file.fileno())
    return mark


def link_of(before: str, text: str) -> str:
    """Return the link of a line after the one with the link `before`."""
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:16]


def packed(right: Bool[np.ndarray, " examples"]) -> str:
    """Write yes and no as a bit each, the first as the highest of a byte, in base64 (RFC 4648)."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, examples: int) -> Bool[np.ndarray, " examples"]:
    """Read what `packed` wrote of so many examples."""
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=examples).astype(bool)
