"""Shared memory in which one process writes bytes that others read.

A `SharedBuffer` belongs to the process that writes it. Readers are told through a pipe where the
bytes are, by a `Location`, and open that memory by its name once. The writer writes the same
memory again and again, so readers may use what they were told of only as long as the protocol of
the two says. `fl.simulation.process_pool` uses two kinds:

* The parent has one for the round's request. It is written while no worker is busy.
* Each worker has two for its replies and writes them in turn. The parent hands a worker its next
  chunk before it reads the last reply; meanwhile the worker writes the other buffer. The parent
  has read a reply before it waits for the next one, so two are enough.

Whoever writes a buffer unlinks it, when it grows or is closed. If a worker is killed, it can't:
then its parent unlinks all buffers that it was told of (`Reader.take_over`). A buffer that a
worker made and died before telling stays until Python's resource tracker, a process that all of
them share, ends after the last of them and unlinks it. The same happens to all buffers if the
parent is killed.
"""

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple

from fl.simulation.pickling import Pieces


class Location(NamedTuple):
    """Where a buffer's bytes are."""

    name: str
    """The name of the memory."""
    size: int
    """The number of bytes, from its beginning on."""
    replaced: str = ""
    """The name of the memory that it takes the place of, which the reader can close."""


NOWHERE = Location("", 0)
"""The machine has too little memory that can be shared; the bytes go through the pipe."""


class SharedBuffer:
    """Memory that one process writes again and again; it grows where needed."""

    def __init__(self) -> None:
        self.memory: SharedMemory | None = None

    def write(self, pieces: Pieces) -> Location:
        """Write pieces one behind the other, and return where; `NOWHERE` if there is no room."""
        size, replaced = sum(map(len, pieces)), ""
        if self.memory is None or self.memory.size < size:
            if size > _free_bytes():
                return NOWHERE
            replaced = self.close()
            self.memory = SharedMemory(create=True, size=size)
        end = 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            self.memory.buf[begin:end] = piece  # pyrefly: ignore
        return Location(self.memory.name, size, replaced)

    def close(self) -> str:
        """Unlink the memory, and return its name. Readers that have opened it still have it."""
        if self.memory is None:
            return ""
        name = self.memory.name
        self.memory.close()
        with suppress(FileNotFoundError):
            self.memory.unlink()
        self.memory = None
        return name


def send(pipe: Connection, location: Location, pieces: Pieces) -> None:
    """Tell a reader where pieces were written; those that are nowhere are sent themselves."""
    pipe.send(location)
    if location == NOWHERE:
        pipe.send_bytes(b"".join(pieces))


class Reader:
    """The buffers of another process, opened as their locations come through a pipe."""

    def __init__(self) -> None:
        self.buffers: dict[str, SharedMemory] = {}

    def receive(self, pipe: Connection) -> memoryview:
        """Return the bytes that were sent. They change when their writer writes that buffer."""
        location: Location = pipe.recv()
        if location == NOWHERE:
            return memoryview(pipe.recv_bytes())
        if location.replaced in self.buffers:
            with suppress(BufferError):  # somebody holds a view of it; it is closed with that
                self.buffers.pop(location.replaced).close()
        if location.name not in self.buffers:
            self.buffers[location.name] = SharedMemory(location.name)
        return self.buffers[location.name].buf[: location.size]  # pyrefly: ignore

    def take_over(self) -> None:
        """Unlink and close all buffers of a process that has ended."""
        for buffer in self.buffers.values():
            with suppress(FileNotFoundError):
                buffer.unlink()
            with suppress(BufferError):
                buffer.close()


def _free_bytes() -> int:
    """Return how many bytes can be shared. Containers often have few, and writing more crashes."""
    with suppress(AttributeError, FileNotFoundError):
        place = os.statvfs("/dev/shm")
        return place.f_bavail * place.f_frsize
    return sys.maxsize
