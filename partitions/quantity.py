"""Size skew alone: clients are of unequal size, and each gets a random share of all classes."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.dirichlet import dirichlet


def quantity(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Shuffle n examples and cut them at ``floor(cumsum(p) * n)`` with ``p ~ Dir(alpha * 1_N)``.

    This equals `dirichlet` on a single class with examples in random order. As alpha goes to 0,
    one client has all but what ``min_size`` leaves to the others. As alpha grows, the result
    becomes `iid`.

    Args:
        labels: The class of each example; only their number matters.
        clients: How many clients, N, at least 1.
        alpha: Concentration of the sizes, above 0, without unit.
        min_size: The fewest examples a client may have; 0 allows empty clients.
        rng: Where sizes and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If a number is out of range, or ``clients * min_size`` exceeds the examples.

    Source: Li et al., arXiv 2102.02079, "Quantity Skew". Their code draws until all have 10
    examples, however long that takes. Derived: after `partitions.deal.repair.TRIES` draws, the
    largest clients give.
    """
    deck = rng.permutation(len(labels))
    one_class = np.zeros(len(labels), dtype=np.int64)
    return [deck[part] for part in dirichlet(one_class, clients, alpha, min_size, rng)]
