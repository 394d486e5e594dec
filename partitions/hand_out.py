"""From how many examples of each class a client gets, to which ones."""

from itertools import pairwise

import numpy as np
from jaxtyping import Int64, Integer


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
    return deck[np.argsort(labels[deck], kind="stable")]


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
    narrow = owners.astype(np.min_scalar_type(clients))  # up to 16 bits NumPy sorts by radix
    by_client = indices[np.argsort(narrow, kind="stable")]
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
