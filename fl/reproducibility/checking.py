"""Files read, and checked: seals, links, and what else is no file of ours."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load

from fl.reproducibility.files import BLANK, JSON_BEGINS, LINK, TENSORS_BEGIN, link_of


class Damaged(ValueError):
    """A file is not as it was written; the message goes on from the file's name."""


def read_checked(path: Path, sealed: bool = False) -> bytes:
    """Return the bytes of a file, whose seal is right if it has one.

    Args:
        path: of the file.
        sealed: whether it has to have one.

    Raises:
        Damaged: the seal is wrong or is not there, or this is a pipe, a device or a folder.
        OSError: it can't be read.
    """
    if path.exists() and not path.is_file():
        raise Damaged("it is not a regular file")
    raw = path.read_bytes()
    for offset, begin in ((0, JSON_BEGINS), (8, TENSORS_BEGIN)):
        place = offset + len(begin)
        if raw[offset:place] == begin:
            digest, end = hashlib.sha256(raw[:place]), place + len(BLANK)
            digest.update(BLANK)
            digest.update(memoryview(raw)[end:])
            if digest.hexdigest().encode() != raw[place:end]:
                raise Damaged("its bytes are not those that its checksum is of")
            return raw
    if sealed:
        raise Damaged("it has no checksum, and the run gave it one")
    return raw


def read_json(path: Path, sealed: bool = False) -> dict[str, Any]:
    """Read an object from a JSON file as `read_checked` does, with its seal if it has one."""
    found = json.loads(read_checked(path, sealed).decode())
    if not isinstance(found, dict):
        raise Damaged("it holds no JSON object")
    return found


def read_tensors(path: Path, sealed: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file as `read_checked` does: its tensors and its metadata."""
    raw = read_checked(path, sealed)
    tensors = load(raw)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return tensors, header.get("__metadata__", {})


class Line(NamedTuple):
    """A line of a file."""

    text: str
    """JSON, without the link."""
    link: str
    """What it has, or would have."""
    end: int
    """The byte after it."""


def read_chain(
    path: Path, first: str = "", linked: bool = False, most: int | None = None
) -> list[Line]:
    """Read lines, and check their links; none where there is no file.

    A last line that is not finished is left out. Lines without a link, of an earlier version, are
    covered by the links of lines that were appended later.

    Args:
        path: of the file.
        first: the link before the first line.
        linked: whether every line has to have a link.
        most: how many lines are read; the others are not looked at. None: all.

    Raises:
        Damaged: a line is not as it was written; the message has its number.
    """
    if not path.exists():
        return []
    found, end = list[Line](), 0
    for number, raw in enumerate(read_checked(path).split(b"\n")[:-1][:most], 1):
        end += len(raw) + 1
        try:
            whole = raw.decode()
        except UnicodeDecodeError:
            raise Damaged(f"line {number} is no text") from None
        begin, has, link = whole.rpartition(f', "{LINK}": "')
        text = f"{begin}}}" if has and len(link) == 18 and link.endswith('"}') else whole
        first = link_of(first, text)
        if text is whole and linked:
            raise Damaged(f"line {number} has no link to the line before")
        if text is not whole and link[:16] != first:
            raise Damaged(f"line {number} is not as it was written, or not in its place")
        found.append(Line(text, first, end))
    return found


def read_lines(path: Path, first: str = "", linked: bool = False) -> list[dict]:
    """Read JSON lines as `read_chain` does, and leave out their links.

    Raises:
        Damaged: a line is not JSON, or not as it was written.
    """
    return [parsed(number, line) for number, line in enumerate(read_chain(path, first, linked), 1)]


def parsed(number: int, line: Line) -> dict:
    """Return the object in a line.

    Raises:
        Damaged: there is none.
    """
    try:
        found = json.loads(line.text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"line {number} is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise Damaged(f"line {number} is no JSON object")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
