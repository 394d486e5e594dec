"""A chunk: the requests that a worker is given at a time, and what it makes of them."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from flwr.app import Message, RecordDict

from fl.client import faults, task
from fl.client.spans import Span
from fl.messages.flower_internals import restore_message
from fl.server.failures import Failure, RunFailed
from fl.simulation.grid import Request
from fl.simulation.pickling import Pieces, pack, unpack
from fl.simulation.workers.evaluating import Told, evaluate_piece
from fl.simulation.workers.pool import WorkerReply
from fl.simulation.workers.profile import Profile
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
        Of a chunk a reply and the state of each client, of a piece its `Part`s, and spans where
        they are to be noted, packed. An error of a single client is a reply. Any other error, such
        as a network that can't be built, is packed as a `Failure` instead.
    """
    begun, spans = time.monotonic(), [] if told.noted else None
    try:
        if isinstance(piece := unpack(packed), range):
            return _packed(evaluate_piece(piece, told), "evaluate", begun, spans)
        chunk = unpack_chunk(packed, told)
        if any(context.run_config.get("faults.kind") == "killed" for _, context in chunk):
            faults.die_by_schedule(chunk)
        replies = task.answer(*zip(*chunk, strict=True), spans=spans)
    except Exception as error:
        return pack(Failure.of(error))
    states = [context.state for _, context in chunk]
    found = list(zip(replies, states, strict=True))
    return _packed(found, chunk[0][0].metadata.message_type, begun, spans)


def _packed(found: list, what: str, begun: float, spans: list[Span] | None) -> Pieces:
    if spans is not None:
        spans.append(Span(what, begun, time.monotonic()))
    return pack((found, spans))


def read_replies(chunk: Chunk, reply: WorkerReply, profile: Profile | None) -> Iterator[Message]:
    """Yield the replies that `work` packed, and update the contexts of their clients.

    Raises:
        RunFailed: the worker met an error that is not of one client.
    """
    found: list[tuple[Message, RecordDict]] | Failure = _read(reply, profile)
    if isinstance(found, Failure):
        raise RunFailed(f"in a worker: {found.reason} ({found.place})", found.short)
    for (_, context), (message, state) in zip(chunk, found, strict=True):
        context.state = state
        yield message


def read_parts(reply: WorkerReply, profile: Profile | None) -> list[Part] | None:
    """Return what `work` packed of a piece; None where the worker could not evaluate it."""
    found: list[Part] | Failure | None = _read(reply, profile)
    return None if isinstance(found, Failure) else found


def _read(reply: WorkerReply, profile: Profile | None) -> Any:
    """Return what a worker made, None if it died; the spans that it noted go to the profile."""
    if reply.replies is None:
        return None
    with reply.replies as packed:  # released once it is read: the worker writes there again
        done: tuple[list, list[Span] | None] | Failure = unpack(packed)
    if isinstance(done, Failure):
        return done
    found, spans = done
    if profile and spans:
        profile.take(reply.worker, spans)
    return found
