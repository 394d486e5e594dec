"""Exceptions: a bug is told with its traceback, and one that all clients have ends a simulation."""

import re
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl.config.parsing import ConfigError
from fl.fleet import LOST
from fl.reproducibility.errors import in_words, writable
from fl.server.journal import ERRORS, Journal

_HOUSE = Path(__file__).parents[2]
_OURS = tuple(f"{_HOUSE / room}/" for room in ("fl", "strategies", "partitions", "experiments"))
_LIBRARIES = ("/site-packages/", "/dist-packages/", "<frozen", f"{sysconfig.get_path('stdlib')}/")
_FRAME = re.compile(r'^[ |+]*  File "(?P<file>.+)", line (?P<line>\d+), in .+$', re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """An exception, as a client told it or as it was raised here."""

    reason: str
    """In one line."""
    trace: str
    """The traceback, as Python prints it."""
    bug: bool
    """Whether it is neither a fault of a client's data nor of its device."""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Return what there is to tell of an exception in this process."""
        trace = writable("".join(traceback.format_exception(error)))
        return cls(in_words(error), trace, bug=True)

    @property
    def place(self) -> str:
        """The file and the line of the innermost frame that is the user's, or ours."""
        frame = _innermost(self.trace)
        return f"{frame['file']}:{frame['line']}" if frame else "no traceback"

    @property
    def short(self) -> str:
        """The traceback without what libraries called below the innermost frame of the user's."""
        frame = _innermost(self.trace)
        if frame is None:
            return self.trace
        below = next((m for m in _FRAME.finditer(self.trace) if m.start() > frame.start()), None)
        if below is None:
            return self.trace
        lines = self.trace[below.start() :].splitlines(keepends=True)
        said = [number for number, line in enumerate(lines) if not line.startswith(" ")]
        return self.trace[: below.start()] + "".join(lines[said[0] :] if said else [])


class RunFailed(RuntimeError):
    """A run that can't go on, or came to nothing.

    Args:
        reason: in one line.
        trace: the traceback of the first client that failed; empty where none did.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


class ClientsFailed(RunFailed):
    """A round in which no client could train because of exceptions, which are in `errors/`."""


EXPECTED = (ConfigError, OSError, RunFailed)
"""Exceptions that end a run and are told in one line. All others are bugs."""


def keep_failures(
    journal: Journal,
    number: int,
    failures: Mapping[int, Failure],
    useless: bool,
    images: Mapping[int, int],
) -> None:
    """Keep the tracebacks of a simulation's clients; if all failed, end it.

    Args:
        journal: where they are kept.
        number: of the round.
        failures: partition id -> its exception; at least one.
        useless: whether no client could train.
        images: partition id -> how many images that client holds.

    Raises:
        RunFailed: no client could train, and exceptions are why.
    """
    for partition, failure in failures.items():
        if failure.bug or useless:
            text = failure.trace or failure.reason
            journal.keep_error(number, f"client-{partition}", text)
    # A client that holds no images can't train, and that is no mistake.
    tried = {p: f for p, f in failures.items() if images[p]}
    if useless and tried:
        raise nobody_trained(number, tried, journal.folder / ERRORS)


def nobody_trained(number: int, failures: Mapping[int, Failure], folder: Path) -> ClientsFailed:
    """Return the error that ends a run in a round in which no client could train.

    Args:
        number: of the round.
        failures: partition id -> its exception; at least one.
        folder: where their tracebacks are.
    """
    partition, first = next(iter(failures.items()))
    return ClientsFailed(
        f"round {number}: no client could train; client {partition}: "
        f"{first.reason} ({first.place}); see {folder}",
        first.short,
    )


def too_few(used: Sequence[Mapping], least: int) -> list[dict]:
    """Return the refusals of replies that could be used and were not, since they were too few."""
    reason = f"only {len(used)} replies can be used, and round.min-replies={least}"
    return [{"partition": account["partition"], "reason": reason} for account in used]


def stop_at_failure(
    number: int, refused: Sequence[Mapping], failures: Mapping[int, Failure]
) -> None:
    """End a run in whose round a client failed, as `round.on-failure=stop` asks.

    Args:
        number: of the round.
        refused: partition and reason of everyone without a usable reply. Whom the fleet's schedule
            loses has not failed.
        failures: partition id -> its exception, where there was one.

    Raises:
        RunFailed: somebody failed.
    """
    for refusal in refused:
        partition, reason = refusal["partition"], refusal["reason"]
        if reason not in LOST:
            trace = failures[partition].short if partition in failures else ""
            said = f"round {number}: client {partition}: {reason}; round.on-failure=stop"
            raise RunFailed(f"{said}, and every finished round is kept", trace)


def _innermost(trace: str) -> re.Match | None:
    """Return the last frame of the last traceback in a text that is of no library."""
    begin = max(trace.rfind("Traceback (most recent call last):"), 0)
    for start in (begin, 0):  # a message may hold such a line, too
        frames = [m for m in _FRAME.finditer(trace, start) if _is_users(m["file"])]
        if frames:
            return frames[-1]
    return None


def _is_users(file: str) -> bool:
    return file.startswith(_OURS) or not any(library in file for library in _LIBRARIES)
