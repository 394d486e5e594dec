"""Calls in a process of their own, with ten seconds and a gigabyte; how many cases a test has."""

import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from fl.config.parsing import ConfigError

SECONDS, BYTES = 10, 10**9


def cases(full: int, reduced: int) -> int:
    """Return how many cases there are: all with FEDNF_FULL=1 (`make test-full`), else a few."""
    return full if os.environ.get("FEDNF_FULL") else reduced


def bounded(call: Callable[[], object]) -> str:
    """Make a call in a child and return `done`, the one line that refuses it, or what went wrong.

    What went wrong begins with `FAULT`: a traceback, more than one line, or a signal that ended it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, _outcome(call).encode(errors="replace")[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and signal.Signals(os.WTERMSIG(status)).name
    return f"FAULT: ended by {killed}" if killed else said


def _outcome(call: Callable[[], object]) -> str:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # whatever else this machine does
    signal.alarm(6 * SECONDS)  # for what waits and does nothing
    sys.stderr = sys.__stderr__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    except ConfigError as error:
        return f"FAULT: several lines: {error}" if "\n" in str(error) else str(error)
    except BaseException:
        return f"FAULT: {traceback.format_exc()}"
    return "done"
