"""A chunk: the requests that a worker is given at a time, and what it makes of them."""

from collections.abc import Iterator, Sequence

from flwr.app import Message, RecordDict

from fl.client import faults, task
from fl.messages.flower_internals import restore_message
from fl.server.failures import Failure, RunFailed
from fl.simulation.grid import Request
from fl.simulation.pickling import Pieces, pack, unpack
from fl.simulation.workers.evaluating import Told, evaluate_piece
from fl.tasks.metrics import Part

Chunk = Sequence[Request]
"""The requests that a worker is given at a time."""


def pack_chunk(chunk: Chunk, shared: RecordDict) -> bytes:
    """Write a chunk without the content that its requests share with all others of the round."""
    parts = [
        (message.metadata, None if message.content is shared else message.content, context)
        for message, context in chunk
    ]
    return b"".join(pack(parts))


def unpack_chunk(packed: bytes, told: Told) -> Chunk:
    """Read a chunk, and put the shared content back."""
    return [
        (restore_message(metadata, told.shared if own is None else own), context)
        for metadata, own, context in unpack(packed)
    ]


def work(packed: bytes, told: Told) -> Pieces:
    """Train the clients of a chunk, or evaluate a piece: this is what a worker does.

    Args:
        packed: the chunk, or the piece.
        told: what was broadcast.

    Returns:
        Of a chunk a reply and the state of each client, of a piece its `Part`s, packed. An error
        of a single client is a reply. Any other error, such as a network that can't be built, is
        packed as a `Failure` instead.
    """
    try:
        if isinstance(piece := unpack(packed), range):
            return pack(evaluate_piece(piece, told))
        chunk = unpack_chunk(packed, told)
        if any(context.run_config.get("faults.kind") == "killed" for _, context in chunk):
            faults.die_by_schedule(chunk)
        replies = task.answer(*zip(*chunk, strict=True))
    except Exception as error:
        return pack(Failure.of(error))
    states = [context.state for _, context in chunk]
    return pack(list(zip(replies, states, strict=True)))


def read_replies(chunk: Chunk, packed: memoryview) -> Iterator[Message]:
    """Yield the replies that `work` packed, and update the contexts of their clients.

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


def read_parts(packed: memoryview | None) -> list[Part] | None:
    """Return what `work` packed of a piece; None where the worker could not evaluate it."""
    if packed is None:
        return None
    with packed:
        found: list[Part] | Failure = unpack(packed)
    return None if isinstance(found, Failure) else found
