"""Exceptions in words: one line of bounded length that any file and terminal can take."""

_LONGEST = 500
"""Characters of a line; what is cut off is in the traceback."""


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
