"""To how many images the batches of lanes are filled up, so that they can be passed together."""

from functools import lru_cache

from fl.config import Experiment
from fl.data import share
from fl.fleet import batch_size

_STEP = 8
"""Images by which widths differ where there are many: each is prepared by itself."""


def steps(size: int) -> tuple[int, ...]:
    """Return the multiples of eight below a batch size, and the size itself."""
    return *range(_STEP, size, _STEP), size


@lru_cache(maxsize=8)
def widths(knobs: Experiment, size: int) -> tuple[int, ...]:
    """Return how wide passes of clients with batches of `size` are, the narrowest first.

    As wide as their batches, if that makes no more of them, as where all clients hold equally many
    images; else those of `steps` that there is a batch for.
    """
    clients = range(knobs.partition.clients)
    held = [
        len(share({"partition-id": client}, knobs).train)
        for client in clients
        if batch_size(knobs, client) == size
    ]
    sizes = {images % size for images in held} - {0} | {size}
    used = {next(step for step in steps(size) if step >= images) for images in sizes}
    return tuple(sorted(sizes if len(sizes) == len(used) else used))
