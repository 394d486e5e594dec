"""Bytes that one process writes and others read, in memory that they share."""

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

from fl.runtime.parcels import Pieces

Told = tuple[str, int, str]
"""Where a slab's bytes are: the memory's name, their number, and the name of one that is gone."""
NO_ROOM: Told = "", 0, ""
"""They are nowhere: the machine has too little memory that can be shared."""


class Slab:
    """Memory that is written again and again, by one process."""

    def __init__(self) -> None:
        self.memory: SharedMemory | None = None

    def write(self, pieces: Pieces) -> Told:
        """Put pieces one behind the other, and say where; nothing is written where is no room."""
        gone, size = "", sum(map(len, pieces))
        if self.memory is None or self.memory.size < size:
            if size > _room():
                return NO_ROOM
            gone = self.close()
            self.memory = SharedMemory(create=True, size=size)
        end = 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            self.memory.buf[begin:end] = piece  # pyrefly: ignore
        return self.memory.name, size, gone

    def close(self) -> str:
        """Give the memory back, and return its name; who reads it still has it."""
        if self.memory is None:
            return ""
        name, memory, self.memory = self.memory.name, self.memory, None
        memory.close()
        with suppress(FileNotFoundError):
            memory.unlink()
        return name


def send(pipe: Connection, told: Told, pieces: Pieces) -> None:
    """Say through a pipe where pieces are; those that are nowhere go through it themselves."""
    pipe.send(told)
    if told == NO_ROOM:
        pipe.send_bytes(b"".join(pieces))


class Reader:
    """The slabs of another process, as they are told of through a pipe."""

    def __init__(self) -> None:
        self.slabs: dict[str, SharedMemory] = {}

    def receive(self, pipe: Connection) -> memoryview:
        """Return the bytes that were sent, as they are until that slab is written again."""
        name, size, gone = told = pipe.recv()
        if told == NO_ROOM:
            return memoryview(pipe.recv_bytes())
        if gone in self.slabs:
            with suppress(BufferError):
                self.slabs.pop(gone).close()
        if name not in self.slabs:
            self.slabs[name] = SharedMemory(name)
        return self.slabs[name].buf[:size]  # pyrefly: ignore

    def take_over(self) -> None:
        """Give all of it back, of a process that is gone."""
        for slab in self.slabs.values():
            with suppress(FileNotFoundError):
                slab.unlink()
            with suppress(BufferError):  # somebody still reads; it goes with the reader
                slab.close()


def _room() -> int:
    """Return the bytes that can be shared; containers often have few, and more is a crash."""
    with suppress(AttributeError, FileNotFoundError):
        place = os.statvfs("/dev/shm")
        return place.f_bavail * place.f_frsize
    return sys.maxsize
