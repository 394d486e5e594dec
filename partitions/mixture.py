"""Label skew and size skew, each with its own knob."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.limits import check_alpha
from partitions.dirichlet_equal import deal_mixes
from partitions.quantity import quantity


def mixture(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    quantity_alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Give clients the sizes of `quantity` and the mixes of `dirichlet_equal`.

    Sizes are ``Dir(quantity_alpha * 1_N)`` shares of all examples, at least ``min_size``; each
    client then draws its own mix of classes from ``Dir(alpha * prior)``, and its examples from
    that mix, without replacement. A client larger than a class can't have that class alone: with
    large clients and small alpha, mixes are less skewed than they were drawn.

    Args:
        labels: The class of each example.
        clients: How many clients, N, at least 1.
        alpha: Concentration of a client's mix of classes, above 0, without unit.
        quantity_alpha: Concentration of the sizes, above 0, without unit.
        min_size: The fewest examples a client may have; 0 allows empty clients.
        rng: Where sizes, mixes, examples and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If a number is out of range, or ``clients * min_size`` exceeds the examples.

    Source: derived, from Li et al., arXiv 2102.02079, "Quantity Skew", and Hsu et al., arXiv
    1909.06335, "Synthetic Non-Identical Client Data".
    """
    check_alpha(alpha)
    check_alpha(quantity_alpha, "partition.quantity-alpha")
    sized = quantity(labels, clients, quantity_alpha, min_size, rng)
    return deal_mixes(labels, np.array([len(part) for part in sized]), alpha, rng)
