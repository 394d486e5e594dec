"""Texts of others, such as exceptions, as any file and terminal can take them.

They are of bounded length, and have no characters that a terminal obeys or a reader does not see.
"""

import os
import traceback
import unicodedata
from pathlib import Path

_LONGEST = 500
"""Characters of a line; what is cut off is in the traceback."""
TOLD = 1000
"""Characters of a text that a device, or a file of somebody else's, tells."""
_TRACE = 100_000
"""Characters of a traceback that a device tells."""
_SLACK = 100
"""Characters more that are let pass, so that what was cut once is not cut again."""
_TORCH = f"{os.sep}torch{os.sep}"


def in_words(error: BaseException) -> str:
    """Return what an exception is and says, in one line, whatever its message holds."""
    try:
        said = str(error)
    except Exception:
        said = "<its message can't be had>"
    line = " ".join(f"{type(error).__name__}: {said[: 2 * _LONGEST]}".split())
    return writable(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")


def writable(text: str) -> str:
    r"""Return a text in which all that can't be seen is an escape, such as ``\x1b``.

    These are control characters (C0, C1) except line feed and tab, format characters (of direction,
    of width zero), separators of lines, halves of surrogate pairs, and what Unicode has not
    assigned. Spaces of any width stay.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_seen(one) else _escape(one) for one in text)


def _is_seen(character: str) -> bool:
    spaces = character in "\n\t" or unicodedata.category(character) == "Zs"
    return character.isprintable() or spaces


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def as_told(text: str, most: int = TOLD) -> str:
    """Return what somebody else says as one line that is `writable`, and no longer than `most`.

    What is cut off is told by the length of the whole: ``… (10,000,000 characters)``.
    """
    return _cut(" ".join(text[: 2 * most].split()), len(text), most)


def trace_as_told(text: str) -> str:
    """Return somebody else's traceback as `as_told`, with its lines."""
    return _cut(text, len(text), _TRACE)


def _cut(text: str, length: int, most: int) -> str:
    line = writable(text[: most + _SLACK])
    if length <= 2 * most and max(len(text), len(line)) <= most + _SLACK:
        return line
    return f"{line[:most]}… ({length:,} characters)"


def placed(error: BaseException) -> str:
    """Return what an exception says behind the file and line of the user's code that led to it.

    That is the last line of the traceback that is neither in this package nor in PyTorch.
    """
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(ours) and _TORCH not in f.filename]
    place = f"{theirs[-1].filename}:{theirs[-1].lineno}: " if theirs else ""
    return f"{place}{in_words(error)}"


class ConfigError(ValueError):
    """A knob that does not exist, or a value that it can't take; the message is one line.

    Args:
        message: of one that is very long, the beginning and the end are kept.
    """

    def __init__(self, message: str) -> None:
        message = writable(message.replace("\n", "\\n"))
        half = _LONGEST_LINE // 2
        long = len(message) > _LONGEST_LINE
        super().__init__(f"{message[:half]} … {message[-half:]}" if long else message)


_LONGEST_LINE = 1_800
"""Characters of a message; all names of ours, where none is near, have fewer."""
_SHOWN = 200
"""Characters of a value that a complaint shows; nobody reads more, and a line stays a line."""


def cut(value: object) -> str:
    """Write a value for a complaint: its beginning, and how long it is, where it is long."""
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN:
        return f"a number of {value.bit_length()} bits"
    try:
        text = str(value)
    except RecursionError:
        return "brackets in brackets"
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}… ({len(text):,} characters)"
