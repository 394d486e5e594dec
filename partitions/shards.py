"""Few classes per client: examples are sorted by label and cut into shards, dealt at random."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.hand_out import by_class, gather, shuffle
from partitions.deal.limits import check_clients


def shards(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    per_client: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Sort examples by label, cut them in ``clients * per_client`` shards, and deal the shards.

    A shard has ``examples // (clients * per_client)`` examples, the first ``examples % ...`` in
    order of label one more, so that clients differ by at most ``per_client`` examples. A shard
    within one class makes a client see at most ``per_client`` classes; each border between two
    classes that lies inside of a shard adds one to a single client.

    Args:
        labels: The class of each example.
        clients: How many clients, at least 1.
        per_client: Shards a client, at least 1.
        rng: Where the dealing and the orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If a number is out of range, or there are more shards than examples.

    Source: McMahan et al., arXiv 1602.05629, "Experimental Results" (pathological non-IID: 200
    shards of 300, 2 for each of 100 clients). Derived: shards that differ by one where the
    division leaves a rest, and random order within a class before the cut.
    """
    if per_client < 1:
        raise ValueError(f"partition.shards is {per_client}: set it to 1 or more")
    check_clients(len(labels), clients, per_client, "partition.shards")
    count = clients * per_client
    small, more = divmod(len(labels), count)
    owners = rng.permutation(np.repeat(np.arange(clients), per_client))
    parts = gather(
        by_class(labels, rng), np.repeat(owners, small + (np.arange(count) < more)), clients
    )
    shuffle(parts, rng)
    return parts
