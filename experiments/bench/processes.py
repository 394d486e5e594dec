"""A process and all its descendants: find them, measure their memory, and end them.

A mark in the environment, which children inherit, identifies them: Ray's daemons leave their
parent, but keep their environment. This needs Linux's `/proc`. Elsewhere a tree is only its first
process, and its memory is unknown.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_EVERY = 0.1  # seconds from one look at the memory to the next
_GRACE = 10.0  # seconds for killed processes to go away


class ProcessTree:
    """The processes that bear a mark.

    Args:
        name: of the mark; unlike any other's.
    """

    def __init__(self, name: str) -> None:
        self.mark = {"FEDNF_BENCH_TREE": name}
        self._words = f"FEDNF_BENCH_TREE={name}".encode()

    def members(self) -> list[Path]:
        """Return the folders in `/proc` of all that live."""
        found = []
        for path in _PROC.glob("[0-9]*"):
            with suppress(OSError):
                if self._words in (path / "environ").read_bytes().split(b"\0"):
                    found.append(path)
        return found

    def memory(self) -> int | None:
        """Return the bytes in use, a page that n processes share being 1/n of each one's."""
        sizes = []
        for path in self.members():
            with suppress(OSError):
                lines = (path / "smaps_rollup").read_text().splitlines()
                sizes += [int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")]
        return sum(sizes) if sizes else None

    def peak(self, process: subprocess.Popen, limit: float) -> int | None:
        """Look at the memory until a process ends, and return the most that was seen.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.
        """
        most, deadline = None, time.monotonic() + limit
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, limit)
            if (now := self.memory()) is not None:
                most = max(most or 0, now)
            time.sleep(_EVERY)
        return most

    def end(self, process: subprocess.Popen) -> None:
        """Kill the first process and all that are left of its tree, and see them gone."""
        process.kill()
        process.wait()
        deadline = time.monotonic() + _GRACE
        while (left := self.members()) and time.monotonic() < deadline:
            for path in left:
                with suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
            time.sleep(0.05)
