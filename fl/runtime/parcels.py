"""What passes between a grid and its workers: requests without what all of them share."""

import io
import pickle
from collections.abc import Sequence

from flwr.app import Message, RecordDict

from fl.runtime.inline import trained
from fl.runtime.simulated import Question

Answer = tuple[Message, RecordDict]
"""A reply, and the client's state after it."""


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, request: RecordDict) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.request = request

    def persistent_id(self, obj: object) -> str | None:
        return "request" if obj is self.request else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, request: RecordDict) -> None:
        super().__init__(file)
        self.request = request

    def persistent_load(self, pid: str) -> RecordDict:
        return self.request


def pack(questions: Sequence[Question], request: RecordDict) -> bytes:
    """Write questions down, with a reference in the place of the request that workers have."""
    file = io.BytesIO()
    _Pickler(file, request).dump(list(questions))
    return file.getvalue()


def work(parcel: bytes, request: RecordDict) -> bytes:
    """Answer a parcel's questions; this is what a worker does."""
    questions = _Unpickler(io.BytesIO(parcel), request).load()
    replies = list(trained(questions))
    states = [context.state for _, context in questions]
    return pickle.dumps(list(zip(replies, states, strict=True)), pickle.HIGHEST_PROTOCOL)


def unpack(answers: bytes | memoryview) -> list[Answer]:
    """Read what `work` returned."""
    return pickle.loads(answers)
