"""What a client tells the server before training: its partition, counts and versions."""

import math
import time
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from fl.data import Form, Share
from fl.messages import records
from fl.reproducibility.errors import as_told, in_words
from fl.reproducibility.provenance import code_hash, packages

_MAX_LENGTH = 100
"""The server reads at most so many characters of a name, and so many names."""
_MOST_SIDES, _MOST_VALUES, _MOST_CLASSES = 8, 10**9, 10**6
"""Sides and values of an example, and classes, beyond which no network can be built for them."""


@dataclass(frozen=True)
class NodeInfo:
    """A client's description of itself. It holds no examples."""

    partition: int
    code: str
    """SHA-256 of the client's source code; see `fl.reproducibility.provenance.code_hash`."""
    images: int
    """Number of images that the client trains on."""
    held_out: int
    """Number of images that the client keeps to score networks."""
    form: Form
    source: str
    """Where the images are from; see `fl.data.Share`."""
    dealt_from: str
    """SHA-256 of the data set that its shard was dealt from; empty where it has none."""
    clock: float
    """The client's clock, in seconds since 1970, UTC."""
    packages: tuple[str, ...]
    """Python and the packages that can change results, with their versions."""


def describe(partition: int, mine: Share) -> RecordDict:
    """Describe this client: its partition, its code, and the kind and number of its images."""
    record: dict = {
        records.PARTITION: partition,
        "code": code_hash(),
        "images": len(mine.train),
        "held-out": len(mine.scored),
        "shape": list(mine.dataset.shape),
        "classes": len(mine.dataset.classes),
        "source": mine.source,
        "dealt-from": mine.dealt_from,
        "clock": time.time(),
        "packages": list(packages()),
    }
    return RecordDict({records.CONFIG: ConfigRecord(record)})


def read(reply: Message) -> NodeInfo:
    """Read a client's description of itself.

    Raises:
        ValueError: the client failed, or the reply is no description. The message is one line.
    """
    if reply.has_error():
        raise ValueError(records.reason(reply))
    try:
        record: dict = dict(reply.content.config_records[records.CONFIG])
        shape = tuple(record["shape"][: _MOST_SIDES + 1])
        sides = (_whole("a side of shape", side, 1, _MOST_VALUES) for side in shape)
        if len(shape) > _MOST_SIDES or not 1 <= math.prod(sides) <= _MOST_VALUES:
            raise ValueError(f"shape={shape}, expected up to {_MOST_SIDES} sides of an example")
        return NodeInfo(
            partition=_whole(records.PARTITION, record[records.PARTITION], None, None),
            code=as_told(str(record["code"]), _MAX_LENGTH),
            images=_whole("images", record["images"], 0, None),
            held_out=_whole("held-out", record["held-out"], 0, None),
            form=Form(shape, _whole("classes", record["classes"], 1, _MOST_CLASSES)),
            source=as_told(str(record["source"]), _MAX_LENGTH),
            dealt_from=as_told(str(record["dealt-from"]), _MAX_LENGTH),
            clock=float(record["clock"]),
            packages=tuple(
                as_told(str(name), _MAX_LENGTH) for name in record["packages"][:_MAX_LENGTH]
            ),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        why = in_words(error)
        raise ValueError(f"it does not say who it is: {why}") from None


def _whole(name: str, value: object, least: int | None, most: int | None) -> int:
    """Return a whole number in its range.

    Raises:
        ValueError: it is none, or out of range.
    """
    if type(value) is not int:
        raise ValueError(f"{name}={value!r:.40}, expected a whole number")
    if value < (value if least is None else least) or value > (value if most is None else most):
        raise ValueError(f"{name}={value}, expected a whole number from {least} to {most or 'any'}")
    return value
