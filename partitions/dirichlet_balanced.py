"""Label skew with limited size skew: a client with an average share gets no further class."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.hand_out import by_class
from partitions.deal.limits import check_alpha, check_clients
from partitions.deal.repair import deal_out
from partitions.dirichlet import divide


def dirichlet_balanced(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Divide each class among the clients that have less than an average share, by Dirichlet.

    Classes are divided in ascending order. With ``p ~ Dir(alpha * 1_N)`` and s_i the number of
    examples, of n, that client i has so far, class k is divided by fractions proportional to
    ``p_i * [s_i < n / N]``, cut as in `dirichlet`. As alpha goes to 0 each class has one owner,
    and no client two classes of at least ``n / N``; as it grows everyone gets the same share.

    The fractions are drawn among the clients below the average, which is the same law: a
    Dirichlet draw, restricted to some of its components and renormalized, is a Dirichlet draw.
    So they can't all be zero, as they are in floating point where alpha is small.

    Args:
        labels: The class of each example.
        clients: How many clients, N, at least 1.
        alpha: Concentration, above 0, without unit.
        min_size: The fewest examples a client may have; 0 allows empty clients.
        rng: Where fractions, examples and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If a number is out of range, or ``clients * min_size`` exceeds the examples.

    Source: Li et al., arXiv 2102.02079, "Label Distribution Skew" (distribution-based label
    imbalance); the balancing is in its code only, NIID-Bench's ``utils.py``, which draws until
    all have 10 examples, however long that takes. Derived: after `partitions.deal.repair.TRIES`
    draws, the largest clients give.
    """
    check_clients(len(labels), clients, min_size)
    check_alpha(alpha)
    class_sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)

    def draw() -> Int64[np.ndarray, "classes clients"]:
        return _divide(class_sizes, clients, alpha, rng)

    return deal_out(by_class(labels, rng), draw, min_size, rng)


def _divide(
    class_sizes: Int64[np.ndarray, " classes"],
    clients: int,
    alpha: float,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "classes clients"]:
    """One try: how many examples of each class go to each client."""
    counts = np.zeros((len(class_sizes), clients), dtype=np.int64)
    dealt = np.zeros(clients, dtype=np.int64)
    for k, row in enumerate(counts):
        below = np.flatnonzero(dealt * clients < class_sizes.sum())
        row[below] = divide(class_sizes[k : k + 1], len(below), alpha, rng)[0]
        dealt += row
    return counts
