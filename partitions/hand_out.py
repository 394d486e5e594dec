"""From how many examples of each class a client gets, to which ones."""

import numpy as np
from jaxtyping import Int64


def hand_out(
    by_class: Int64[np.ndarray, " examples"], counts: Int64[np.ndarray, "classes clients"]
) -> list[Int64[np.ndarray, " _"]]:
    """Cut each class into consecutive pieces, client 0 first, and gather each client's pieces.

    Args:
        by_class: The indices of all examples, grouped by class.
        counts: How many examples of each class go to each client; a row sums to the size of
            its class, in the order in which ``by_class`` has the classes.

    Returns:
        One index array a client, class by class in the order of ``by_class``.
    """
    classes, clients = counts.shape
    owners = np.repeat(np.tile(np.arange(clients), classes), counts.ravel())
    by_client = by_class[np.argsort(owners, kind="stable")]
    return np.split(by_client, np.cumsum(counts.sum(axis=0))[:-1])


def shuffle(parts: list[Int64[np.ndarray, " _"]], rng: np.random.Generator) -> None:
    """Shuffle each client's indices in place, client 0 first.

    Args:
        parts: One index array a client.
        rng: Where the orders are drawn from.
    """
    for part in parts:
        rng.shuffle(part)
