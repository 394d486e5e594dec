"""A chunk: the requests that a worker is given at a time, and what it makes of them."""

from collections.abc import Iterator, Sequence

from flwr.app import Message, RecordDict

from fl.client import faults, task
from fl.messages.flower_internals import restore_message
from fl.server.failures import Failure, RunFailed
from fl.simulation.grid import Request
from fl.simulation.pickling import Pieces, pack, unpack

Chunk = Sequence[Request]
"""The requests that a worker is given at a time."""


def pack_chunk(chunk: Chunk, shared: RecordDict) -> bytes:
    """Write a chunk without the content that its requests share with all others of the round."""
    parts = [
        (message.metadata, None if message.content is shared else message.content, context)
        for message, context in chunk
    ]
    return b"".join(pack(parts))


def unpack_chunk(packed: bytes, shared: RecordDict) -> Chunk:
    """Read a chunk, and put the shared content back."""
    return [
        (restore_message(metadata, shared if own is None else own), context)
        for metadata, own, context in unpack(packed)
    ]


def train_chunk(packed: bytes, shared: RecordDict) -> Pieces:
    """Train the clients of a chunk: this is what a worker does.

    Args:
        packed: the chunk.
        shared: what was broadcast.

    Returns:
        A reply and the state of each client, packed. An error of a single client is a reply. Any
        other error, such as a network that can't be built, is packed as a `Failure` instead.
    """
    try:
        chunk = unpack_chunk(packed, shared)
        if any(context.run_config.get("faults.kind") == "killed" for _, context in chunk):
            faults.die_by_schedule(chunk)
        replies = task.answer(*zip(*chunk, strict=True))
    except Exception as error:
        return pack(Failure.of(error))
    states = [context.state for _, context in chunk]
    return pack(list(zip(replies, states, strict=True)))


def read_replies(chunk: Chunk, packed: memoryview) -> Iterator[Message]:
    """Yield the replies that `train_chunk` packed, and update the contexts of their clients.

    Raises:
        RunFailed: the worker met an error that is not of one client.
    """
    with packed:  # released as soon as it is read, since the worker will write that memory again
        found: list[tuple[Message, RecordDict]] | Failure = unpack(packed)
    if isinstance(found, Failure):
        raise RunFailed(f"in a worker: {found.reason} ({found.place})", found.short)
    for (_, context), (reply, state) in zip(chunk, found, strict=True):
        context.state = state
        yield reply
