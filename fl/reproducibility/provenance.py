"""Describe what a result depends on besides its knobs: code, packages and machine."""

import hashlib
import os
import platform
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch

from fl import __version__

_ROOMS = ("fl", "strategies", "partitions")
_PACKAGES = ("torch", "numpy", "flwr", "ray")


@lru_cache
def code_hash() -> str:
    """SHA-256 over the source of all that a device runs: `fl`, `strategies` and `partitions`.

    A server compares it with every client's, because Flower's Ray simulation may import another
    copy of a package on its workers than on its server, without a word.
    """
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def packages() -> tuple[str, ...]:
    """Return Python and the packages that bear on results, with their versions."""
    return f"python {platform.python_version()}", *(f"{n} {v}" for n, v in _versions().items())


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def conditions() -> dict[str, object]:
    """Return the code, packages and machine under which a result came about."""
    return {
        "version": __version__,
        "code_sha256": code_hash(),
        "python": platform.python_version(),
        "packages": _versions(),
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        },
    }


def _processor() -> str:
    """Name the processor: on Linux as the kernel does, elsewhere as the platform module does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
