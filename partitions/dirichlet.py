"""Label and size skew: each class is divided among the clients by a Dirichlet draw.

This reproduces Flower Datasets' partitions bit for bit. Flower Datasets draws again until every
client is large enough, and raises after eleven tries; with many clients and a small alpha no try
is good enough. This function then keeps the last try and fills up the clients that are too small.
"""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.hand_out import order
from partitions.deal.limits import check_alpha, check_clients
from partitions.deal.repair import deal_out


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
    wherever that returns. Where it raises after its tries, `partitions.deal.repair` takes over.

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
    classes = order(labels)
    return deal_out(classes, lambda: divide(class_sizes, clients, alpha, rng), min_size, rng)


def divide(
    class_sizes: Int64[np.ndarray, " classes"],
    clients: int,
    alpha: float,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "classes clients"]:
    """Divide each class by fractions ``p ~ Dir(alpha * 1_n)``, cut at ``floor(cumsum(p) * n_k)``.

    Args:
        class_sizes: How many examples each class has, n_k.
        clients: How many clients, n, at least 1.
        alpha: Concentration, above 0, without unit.
        rng: Where the fractions are drawn from, class by class.

    Returns:
        How many examples of each class go to each client; a row sums to the size of its class.
    """
    # NumPy draws sound fractions down to the smallest alpha, but where their sum overflows it
    # returns zeros. Half of the largest number leaves room for that sum, and is as even.
    concentration = np.full(clients, min(alpha, np.finfo(float).max / (2 * clients)))
    fractions = rng.dirichlet(concentration, len(class_sizes))
    ends = class_sizes[:, None]
    cuts = (np.cumsum(fractions, axis=1) * ends).astype(np.int64)[:, :-1]
    return np.diff(cuts, axis=1, prepend=0, append=ends)
