"""Shared memory in which one process writes bytes that others read, and that nobody can leave.

The memory has no name: the kernel frees it with the last process that has it open, however that
one ends. So a group of processes that is killed leaves nothing behind, and nobody has to clean up.
It passes to a reader as a file descriptor, through the Unix socket that a pipe of
`multiprocessing` is. A few bytes go through the pipe itself.

A writer writes its buffer again and again, so readers may use what they received only as long as
the protocol of the two says. `fl.simulation.process_pool` uses two kinds:

* The parent has one for the round's request. It is written while no worker is busy.
* Each worker has two for its replies and writes them in turn. The parent hands a worker its next
  chunk before it reads the last reply; meanwhile the worker writes the other buffer. The parent
  has read a reply before it waits for the next one, so two are enough.
"""

import mmap
import os
import socket
import tempfile
from multiprocessing.connection import Connection
from typing import BinaryIO

from fl.simulation.pickling import Pieces

SMALL = 65_536
"""Bytes up to which the pipe takes a message as fast."""


class SharedBuffer:
    """Memory that one process writes again and again; it grows where needed."""

    def __init__(self) -> None:
        self.file: BinaryIO | None = None
        """None until something large is to be written."""

    def write(self, pieces: Pieces) -> int | None:
        """Write pieces one behind the other.

        Returns:
            The bytes that were written; None where they are few, or where the machine has no room
            for them: then they are to go through the pipe.
        """
        size = sum(map(len, pieces))
        if size <= SMALL:
            return None
        try:
            self.file = self.file or nameless()
            self.file.seek(0)
            self.file.writelines(pieces)
            self.file.flush()
        except OSError:
            self.close()
            return None
        return size

    def send(self, pipe: Connection, size: int | None, pieces: Pieces) -> None:
        """Tell a reader of what was written, or send it what was not."""
        pipe.send(size)
        if size is None:
            pipe.send_bytes(b"".join(pieces))
        else:
            assert self.file is not None
            with _as_socket(pipe) as through:
                socket.send_fds(through, [b"."], [self.file.fileno()])

    def close(self) -> None:
        """Free the memory. Readers keep what they have received."""
        if self.file:
            self.file.close()
            self.file = None


def receive(pipe: Connection) -> memoryview:
    """Return the bytes that were sent. They change when their writer writes that buffer."""
    size: int | None = pipe.recv()
    if size is None:
        return memoryview(pipe.recv_bytes())
    with _as_socket(pipe) as through:
        _, files, _, _ = socket.recv_fds(through, 1, 1)
    if not files:
        raise EOFError
    try:
        return memoryview(mmap.mmap(files[0], size, prot=mmap.PROT_READ))
    finally:
        os.close(files[0])


def nameless() -> BinaryIO:
    """Return a file in memory without a name; on systems that have none, a temporary file."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("fednf"), "w+b")
    return tempfile.TemporaryFile()


def _as_socket(pipe: Connection) -> socket.socket:
    return socket.fromfd(pipe.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
