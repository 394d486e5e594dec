"""What memory and disk this machine can still give, and the one line where something won't fit.

What is asked for is known from knobs and from files' headers, before anything is made of it; so a
slip of three zeros, or a file that is meant to, costs a line and not the machine.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fl.reproducibility.errors import ConfigError, cut

LIMIT = "FEDNF_MEMORY"
"""The environment variable that says how much memory there is, where that is less: `8G`, `500M`."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_WORDS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def free_memory() -> int:
    """Return the bytes that this process can still take.

    The least of what the machine has free (swap is taken too), of what the process's control
    groups leave it, of its limit of addresses, and of `FEDNF_MEMORY`.

    Raises:
        ConfigError: `FEDNF_MEMORY` is no number of bytes.
    """
    return min(_free())


def check_fits(what: str, needed: int, hint: str = "") -> None:
    """Refuse what memory does not hold.

    Args:
        what: begins the line, such as "network.width=200000: weights of".
        needed: bytes, never more than what is certainly taken.
        hint: ends the line: what to do.

    Raises:
        ConfigError: there is not so much; the line has both numbers.
    """
    if needed > (there := free_memory()):
        raise ConfigError(
            f"{what} {size(needed)}; this machine has {size(there)} free{hint and '; ' + hint}"
        )


def check_disk(what: str, needed: int, folder: Path, hint: str) -> None:
    """Refuse what the disk of a folder, which may have to be made, does not hold; see `check_fits`.

    Raises:
        ConfigError: there is not so much.
    """
    with suppress(OSError):  # who can't say how much there is will say so when it is written
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if needed > (there := shutil.disk_usage(place).free):
            raise ConfigError(f"{what} {size(needed)}; {place} has {size(there)} free; {hint}")


def fits(what: str, needed: int) -> None:
    """Refuse data that memory does not hold, before memory is taken for them.

    Args:
        what: whose size it is, such as "mine.npz: the header of x asks for".
        needed: bytes.

    Raises:
        ConfigError: there is not so much; the line has both numbers.
    """
    check_fits(what, needed, f"see {LIMIT} in docs/guide/data.md")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_file(path: Path) -> int:
    """Refuse what is no regular file, or larger than memory; returns its size in bytes.

    A link counts as what it leads to, wherever that is: data sets are kept by links, such as those
    of the Hugging Face hub's cache. A pipe or a device behind it would never end.

    Raises:
        ConfigError: it is a pipe, a socket, a device or a folder, a link that leads nowhere or to
            itself, or does not fit into memory.
    """
    try:
        found = path.stat()
    except OSError as error:
        why = "it is a link to itself" if error.errno == errno.ELOOP else error.strerror
        if path.is_symlink() and isinstance(error, FileNotFoundError):
            why = f"it is a link to {cut(os.readlink(path))}, where nothing is"
        raise ConfigError(f"can't read {path}: {why}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for fits, words in _KINDS if fits(found.st_mode)), "something else")
        to = f"a link to {path.resolve()}, " if path.is_symlink() else ""
        raise ConfigError(f"can't read {path}: it is {to}{kind}, expected a regular file")
    fits(f"{path} has", found.st_size)
    return found.st_size


def size(number: int) -> str:
    """Write a number of bytes in words, by thousands: ``3.2 TB``."""
    value, unit = number, 0
    while value >= 1000 and unit < len(_WORDS) - 1:
        value, unit = value // 1000 if value > 10**15 else value / 1000, unit + 1
    return f"{number} bytes" if unit == 0 else f"{value:.3g} {_WORDS[unit]}"


def _free() -> Iterator[int]:
    if (text := os.environ.get(LIMIT)) is not None:
        found = re.fullmatch(r"(\d{1,18})\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
        if not found:
            raise ConfigError(f"{LIMIT}={cut(text)} is no size of memory; write for example 8G")
        yield int(found[1]) * _UNITS[found[2].upper()]
    yield _of_machine()
    yield from _of_groups()
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource  # which Windows does not have

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            yield max(most - taken, 0)


def _of_machine() -> int:
    """Return what the machine has free; where it does not say, all that it has."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        kept = dict(line.split(":", 1) for line in lines if ":" in line)
        keys = [key for key in ("MemAvailable", "SwapFree") if key in kept]
        if "MemAvailable" in keys:
            return sum(int(kept[key].split()[0]) * 1024 for key in keys)
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**62


def _of_groups() -> Iterator[int]:
    """Yield what each control group around this process leaves: version 2, then version 1."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds == "":
                yield from _left(Path("/sys/fs/cgroup"), name, "memory.max", "memory.current")
            elif "memory" in kinds.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes"
                yield from _left(Path("/sys/fs/cgroup/memory"), name, *names)


def _left(root: Path, name: str, limit: str, usage: str) -> Iterator[int]:
    inner = root / name.lstrip("/")
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # no limit: the text is max
            most, used = (int((folder / file).read_text()) for file in (limit, usage))
            stat = (folder / "memory.stat").read_text().split()
            known = dict(zip(stat[::2], stat[1::2], strict=False))
            cached = int(known.get("total_inactive_file", known.get("inactive_file", 0)))
            yield max(most - used + cached, 0)
        if folder == root:
            return
