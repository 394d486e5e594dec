"""No skew: the examples are shuffled and cut into equal parts."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.limits import check_clients


def iid(
    labels: Integer[np.ndarray, " examples"], clients: int, rng: np.random.Generator
) -> list[Int64[np.ndarray, " _"]]:
    """Give each client ``n // clients`` examples, drawn uniformly at random.

    The first ``n % clients`` clients get one more.

    Args:
        labels: The class of each example; only their number matters.
        clients: How many clients, between 1 and the number of examples.
        rng: Where the order of the examples is drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If clients is below 1 or above the number of examples.

    Source: McMahan et al., arXiv 1602.05629, "Experimental Results" (IID).
    """
    check_clients(len(labels), clients, min_size=1)
    return np.array_split(rng.permutation(len(labels)), clients)
