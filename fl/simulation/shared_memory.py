"""Bytes that one process writes and others read, in memory that they share."""

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from fl.simulation.pickling import Pieces

Told = tuple[str, int, str]
"""Where a slab's bytes are: the memory's name, their number, and the name of one that is gone."""
NO_ROOM: Told = "", 0, ""
"""They are nowhere: the machine has too little memory that can be shared."""


_held: list[SharedMemory] = []


class Slab:
    """Memory that is written again and again, by one process."""

    def __init__(self) -> None:
        self.memory: SharedMemory | None = None

    def write(self, pieces: Pieces) -> Told:
        """Put pieces one behind the other, and say where; nothing is written where is no room.

        Views of what this memory was, which it no longer is, become bytes.
        """
        gone, size = "", sum(map(len, pieces))
        there = self._there(pieces)
        if not there:  # some may be views of other parts of this memory, or of what is given back
            pieces[:] = [bytes(piece) for piece in pieces]
        if self.memory is None or self.memory.size < size:
            if size > _room():
                return NO_ROOM
            gone = self.close()
            self.memory = SharedMemory(create=True, size=size)
        end = 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            if not (there and isinstance(piece, memoryview)):
                self.memory.buf[begin:end] = piece  # pyrefly: ignore
        return self.memory.name, size, gone

    def place(self) -> memoryview | None:
        """Return its memory, for who packs what is to be written; None where there is none yet."""
        return self.memory.buf if self.memory else None

    def _there(self, pieces: Pieces) -> bool:
        """Return whether all views among pieces are of the part of this memory that they go to."""
        if self.memory is None or self.memory.size < sum(map(len, pieces)):
            return False
        end = _address(self.memory.buf)  # pyrefly: ignore
        for piece in pieces:
            begin, end = end, end + len(piece)
            if isinstance(piece, memoryview) and begin != _address(piece):
                return False
        return True

    def close(self) -> str:
        """Give the memory back, and return its name; who reads it still has it."""
        if self.memory is None:
            return ""
        name, memory, self.memory = self.memory.name, self.memory, None
        try:
            memory.close()
        except BufferError:  # of what was packed into it not all is gone
            _held.append(memory)
        with suppress(FileNotFoundError):
            memory.unlink()
        return name


def _address(memory: memoryview) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data


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
