"""Who a client says that it is, before it is asked to train: counts and versions, no examples."""

import time
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from fl.data import Form, Share
from fl.messages import records
from fl.reproducibility.provenance import code_hash, packages

_LONGEST = 100
"""Letters of a name, or names, that are listened to."""


@dataclass(frozen=True)
class Identity:
    """What a client says of itself before it is asked to train."""

    partition: int
    code: str
    """Hash of the code that it runs."""
    images: int
    """That it trains on."""
    held_out: int
    """That it keeps to score networks."""
    form: Form
    source: str
    """Where its images are from; see `fl.data.Share`."""
    clock: float
    """Its time, in seconds since 1970, UTC."""
    packages: tuple[str, ...]
    """Python and the packages that bear on results, with their versions."""


def tell(partition: int, mine: Share) -> RecordDict:
    """Return who a client is, which code it runs, and how much of what it holds; no examples."""
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


def read(reply: Message) -> Identity:
    """Return what a client has said of itself.

    Raises:
        ValueError: it failed, or says something else; the line is fit for the journal.
    """
    if reply.has_error():
        raise ValueError(records.reason(reply))
    try:
        record: dict = dict(reply.content.config_records[records.CONFIG])
        shape = tuple(int(side) for side in record["shape"])
        return Identity(
            partition=int(record[records.PARTITION]),
            code=str(record["code"]),
            images=max(int(record["images"]), 0),
            held_out=max(int(record["held-out"]), 0),
            form=Form(shape, int(record["classes"])),
            source=str(record["source"])[:_LONGEST],
            clock=float(record["clock"]),
            packages=tuple(str(name)[:_LONGEST] for name in record["packages"][:_LONGEST]),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"it does not say who it is: {why}") from None
