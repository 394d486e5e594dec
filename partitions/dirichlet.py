"""Label and size skew: each class is divided among the clients by a Dirichlet draw.

This is the deal of Flower Datasets, to the last bit, as far as Flower Datasets answers. It
draws anew until every client is large enough and gives up after eleven tries, which many
clients with small alpha never pass. We then keep the last try and top up who has too little.
"""

import heapq

import numpy as np
from jaxtyping import Int64, Integer

from partitions.hand_out import hand_out, shuffle
from partitions.limits import check_alpha, check_clients

TRIES = 11
"""Draws before the repair: flwr-datasets makes one and repeats it ten times."""


def dirichlet(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Divide each class k among the n clients by fractions ``p_k ~ Dir(alpha * 1_n)``.

    With ``c = cumsum(p_k)``, client i gets the examples ``floor(c[i-1] * n_k)`` up to
    ``floor(c[i] * n_k)`` of the ``n_k`` in class k; classes are visited in ascending order. As
    alpha goes to 0 each class has one owner; as it grows everyone gets the same share of each.

    With the same generator this equals, order included, flwr-datasets 0.6.1's
    ``DirichletPartitioner(clients, ..., alpha, min_size, self_balancing=False, shuffle=True)``
    wherever that returns; where it raises after its tries, see `top_up`.

    Args:
        labels: The class of each example.
        clients: How many clients, at least 1.
        alpha: Concentration, above 0, without unit.
        min_size: The fewest examples a client may have; 0 allows empty clients.
        rng: Where fractions and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If a number is out of range, or ``clients * min_size`` exceeds the examples.

    Source: Yurochkin et al., arXiv 1905.12022, "Experiments"; without the balancing of its code.
    """
    check_clients(len(labels), clients, min_size)
    check_alpha(alpha)
    class_sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    for _ in range(TRIES):
        counts = _divide(class_sizes, clients, alpha, rng)
        if fits := counts.sum(axis=0).min() >= min_size:
            break
    parts = hand_out(np.argsort(labels, kind="stable"), counts)
    if not fits:
        shuffle(parts, rng)  # so that what a client gives away has its own mix of classes
        parts = top_up(parts, min_size)
    shuffle(parts, rng)
    return parts


def _divide(
    class_sizes: Int64[np.ndarray, " classes"],
    clients: int,
    alpha: float,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "classes clients"]:
    """One try: how many examples of each class go to each client."""
    # NumPy draws sound fractions down to the smallest alpha, but where their sum overflows it
    # returns zeros. Half of the largest number leaves room for that sum, and is as even.
    concentration = np.full(clients, min(alpha, np.finfo(float).max / (2 * clients)))
    counts = np.empty((len(class_sizes), clients), dtype=np.int64)
    for row, size in zip(counts, class_sizes, strict=True):
        cuts = (np.cumsum(rng.dirichlet(concentration)) * size).astype(np.int64)[:-1]
        row[:] = np.diff(cuts, prepend=0, append=size)
    return counts


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
    return [
        np.concatenate([part[: kept[client]], *received.get(client, [])])
        for client, part in enumerate(parts)
    ]
