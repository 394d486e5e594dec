"""What passes between a grid and its workers: requests without what all share, and replies."""

import io
import pickle
from typing import Any

from flwr.app import Message, RecordDict

from fl.simulation.grid import Question, trained
from strategies import arrays as npy

Answer = tuple[Message, RecordDict]
"""A reply, and the client's state after it."""


_LENGTH = 8


class _Pickler(pickle.Pickler):
    """Leaves out the request that both sides have, and large bytes, which it lists."""

    def __init__(self, file: io.BytesIO, request: RecordDict) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.request = request
        self.large: Pieces = []

    def persistent_id(self, obj: object) -> int | None:
        if obj is self.request:
            return _REQUEST
        if type(obj) is memoryview or (type(obj) is bytes and len(obj) >= npy.LARGE):
            self.large.append(obj)  # not copied into a pickle first
            return len(obj)
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, pickled: memoryview, large: memoryview, request: RecordDict) -> None:
        super().__init__(io.BytesIO(pickled))
        self.request, self.large = request, large

    def persistent_load(self, pid: int) -> RecordDict | bytes:
        if pid == _REQUEST:
            return self.request
        found, self.large = bytes(self.large[:pid]), self.large[pid:]
        return found


_REQUEST = -1
"""Stands for it; for bytes stands their number."""
Pieces = list[bytes | memoryview]
"""To be written one behind the other: large bytes, a pickle, and its length."""


def pack(obj: object, request: RecordDict) -> Pieces:
    """Write an object down, with a reference in the place of the request that the reader has."""
    pickler = _Pickler(file := io.BytesIO(), request)
    pickler.dump(obj)
    pickled = file.getvalue()
    return [*pickler.large, pickled, len(pickled).to_bytes(_LENGTH, "little")]


def unpack(packed: bytes | memoryview, request: RecordDict) -> Any:
    """Read an object that `pack` wrote."""
    whole = memoryview(packed)
    end = len(whole) - _LENGTH
    begin = end - int.from_bytes(whole[end:], "little")
    return _Unpickler(whole[begin:end], whole[:begin], request).load()


def work(parcel: bytes, request: RecordDict) -> Pieces:
    """Answer a parcel of questions, or say what went wrong; this is what a worker does.

    What can be laid to one client is an answer; the rest, such as a network that can't be made, is
    one line, and ends the run as it does in one process.
    """
    try:
        questions: list[Question] = unpack(parcel, request)
        replies = list(trained(questions))
    except Exception as error:
        return pack(" ".join(f"{type(error).__name__}: {error}".split()), request)
    states = [context.state for _, context in questions]
    return pack(list(zip(replies, states, strict=True)), request)
