"""Turn counts per class and client into index arrays."""

from itertools import pairwise

import numpy as np
from jaxtyping import Int64, Integer


def order(keys: Integer[np.ndarray, " examples"]) -> Int64[np.ndarray, " examples"]:
    """Return the places of the keys, by key ascending, equal keys in their order.

    Numbers of up to 16 bits are sorted by radix, in NumPy several times as fast as wider ones.

    Args:
        keys: Labels or numbers of clients, at least one.
    """
    low, high = int(keys.min()), int(keys.max())
    if high - low < 2**16:
        keys = (keys.astype(np.int64) - low).astype(np.uint16)
    return np.argsort(keys, kind="stable")


def by_class(
    labels: Integer[np.ndarray, " examples"], rng: np.random.Generator
) -> Int64[np.ndarray, " examples"]:
    """Sort the examples by class, ascending, and in random order within a class.

    Args:
        labels: The class of each example.
        rng: Where the orders are drawn from.

    Returns:
        Indices into ``labels``.
    """
    deck = rng.permutation(len(labels))
    return deck[order(labels[deck])]


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
    return gather(
        by_class, np.repeat(np.tile(np.arange(clients), classes), counts.ravel()), clients
    )


def gather(
    indices: Int64[np.ndarray, " examples"], owners: Int64[np.ndarray, " examples"], clients: int
) -> list[Int64[np.ndarray, " _"]]:
    """Give every index to its owner.

    Args:
        indices: What is given.
        owners: To which client each goes, from 0 to ``clients - 1``.
        clients: How many clients.

    Returns:
        One index array a client, in the order of ``indices``; pieces of one array.
    """
    by_client = indices[order(owners)]
    ends = np.cumsum(np.bincount(owners, minlength=clients))
    return [by_client[start:end] for start, end in pairwise([0, *ends.tolist()])]


def shuffle(parts: list[Int64[np.ndarray, " _"]], rng: np.random.Generator) -> None:
    """Shuffle each client's indices in place, client 0 first.

    Args:
        parts: One index array a client.
        rng: Where the orders are drawn from.
    """
    for part in parts:
        rng.shuffle(part)
