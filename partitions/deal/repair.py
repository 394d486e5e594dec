"""Ensure a minimum size in bounded time: draw a few times, then take from the largest clients."""

import heapq
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from partitions.deal.hand_out import hand_out, shuffle

TRIES = 11
"""Draws before the repair: flwr-datasets makes one and repeats it ten times."""


def deal_out(
    by_class: Int64[np.ndarray, " examples"],
    draw: Callable[[], Int64[np.ndarray, "classes clients"]],
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Deal by the first draw that is large enough, or by the last of `TRIES` and `top_up`.

    The sources draw until no client is too small. With many clients and a small alpha that may
    never end.

    Args:
        by_class: The indices of all examples, grouped by class.
        draw: Draws how many examples of each class go to each client, as `hand_out` wants it.
        min_size: The fewest examples a client may have; ``clients * min_size`` must not exceed
            the examples.
        rng: Where orders are drawn from.

    Returns:
        One shuffled array of indices a client; every example exactly once.
    """
    for _ in range(TRIES):
        counts = draw()
        if fits := counts.sum(axis=0).min() >= min_size:
            break
    parts = hand_out(by_class, counts)
    if not fits:
        shuffle(parts, rng)  # so that what a client gives away has its own mix of classes
        parts = top_up(parts, min_size)
    shuffle(parts, rng)
    return parts


def top_up(parts: list[Int64[np.ndarray, " _"]], min_size: int) -> list[Int64[np.ndarray, " _"]]:
    """Raise every client to ``min_size`` examples, taken from whoever has the most at the time.

    A client that is too small gets what it lacks from the end of the largest client's array,
    in one piece if that client can spare it, so that it stays as skewed as its giver. Of equals
    the lower number gives. Each step fills one client or brings one down to ``min_size``: there
    are at most ``2 * clients`` steps, and nobody falls below ``min_size`` by giving.

    Args:
        parts: One index array a client; left as they are.
        min_size: The fewest examples a client may have; ``clients * min_size`` must not exceed
            the examples.

    Returns:
        One index array a client: what it had less what it gave, then what it received.
    """
    kept = [len(part) for part in parts]
    received: dict[int, list[np.ndarray]] = {}
    # Whoever is on top has more than min_size, as long as anyone lacks something.
    givers = [(-size, client) for client, size in enumerate(kept)]
    heapq.heapify(givers)
    for client, size in enumerate(kept):
        lacking = min_size - size
        while lacking > 0:
            giver = givers[0][1]
            end = kept[giver]
            moved = min(lacking, end - min_size)
            received.setdefault(client, []).append(parts[giver][end - moved : end])
            kept[giver] -= moved
            lacking -= moved
            heapq.heapreplace(givers, (-kept[giver], giver))
    pieces = [part[:end] for part, end in zip(parts, kept, strict=True)]
    for client, gifts in received.items():
        pieces[client] = np.concatenate([pieces[client], *gifts])
    return pieces
