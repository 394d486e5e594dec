"""Padded sizes: lanes step together, so batches are brought to one size, and passes to few.

A batch that is shorter than others in its step is padded with copies of its last example that have
weight 0 in the loss. A pass that has room for more lanes than are busy is filled up with idle ones.
Every padded size is traced by itself, so there are few of them.
"""

from functools import lru_cache

from fl.config import Experiment
from fl.data import share
from fl.fleet import batch_size

_MULTIPLE = 8
"""Padded sizes are multiples of this where clients' last batches have many different sizes."""


def multiples_of_eight(size: int) -> tuple[int, ...]:
    """Return the multiples of eight below a batch size, and the size itself."""
    return *range(_MULTIPLE, size, _MULTIPLE), size


def halves(lanes: int) -> tuple[int, ...]:
    """Return all lanes, half of them, rounded down, and so on to one lane."""
    return (lanes, *halves(lanes // 2)) if lanes > 1 else (lanes,)


def fewest_rows(lanes: int, busy: int) -> int:
    """Return the least of the `halves` of all lanes that has room for the busy ones."""
    return min(rows for rows in halves(lanes) if rows >= busy)


@lru_cache(maxsize=8)
def padded_sizes(knobs: Experiment, size: int) -> tuple[int, ...]:
    """Return the sizes to which batches of clients with batch size `size` are padded, ascending.

    Short last batches are padded to their exact size if only a few sizes occur, as where all
    clients hold equally many images; otherwise to the next of `multiples_of_eight`.
    """
    clients = range(knobs.partition.clients)
    held = [
        len(share({"partition-id": client}, knobs).train)
        for client in clients
        if batch_size(knobs, client) == size
    ]
    exact = {images % size for images in held} - {0} | {size}
    multiples = {
        next(multiple for multiple in multiples_of_eight(size) if multiple >= images)
        for images in exact
    }
    return tuple(sorted(exact if len(exact) == len(multiples) else multiples))
