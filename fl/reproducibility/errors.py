"""Exceptions in words: one line of bounded length that any file and terminal can take."""

import os
import traceback
from pathlib import Path

_LONGEST = 500
"""Characters of a line; what is cut off is in the traceback."""
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
    """Return a text in which what is no character, such as half of a pair, is an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def placed(error: BaseException) -> str:
    """Return what an exception says behind the file and line of the user's code that led to it.

    That is the last line of the traceback that is neither in this package nor in PyTorch.
    """
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(ours) and _TORCH not in f.filename]
    place = f"{theirs[-1].filename}:{theirs[-1].lineno}: " if theirs else ""
    return f"{place}{in_words(error)}"
