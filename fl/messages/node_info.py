"""What a client tells the server before training: its partition, counts and versions."""

import time
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from fl.data import Form, Share
from fl.messages import records
from fl.reproducibility.errors import in_words
from fl.reproducibility.provenance import code_hash, packages

_MAX_LENGTH = 100
"""The server reads at most so many characters of a name, and so many names."""


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
        shape = tuple(int(side) for side in record["shape"])
        return NodeInfo(
            partition=int(record[records.PARTITION]),
            code=str(record["code"]),
            images=max(int(record["images"]), 0),
            held_out=max(int(record["held-out"]), 0),
            form=Form(shape, int(record["classes"])),
            source=str(record["source"])[:_MAX_LENGTH],
            clock=float(record["clock"]),
            packages=tuple(str(name)[:_MAX_LENGTH] for name in record["packages"][:_MAX_LENGTH]),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        why = in_words(error)
        raise ValueError(f"it does not say who it is: {why}") from None
