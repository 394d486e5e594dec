"""Label skew by count: each client owns k labels, and the owners of a label share it equally."""

import numpy as np
from jaxtyping import Bool, Int64, Integer

from partitions.deal.hand_out import by_class
from partitions.deal.limits import check_clients
from partitions.deal.repair import deal_out


def label_count(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    per_client: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Give each client k labels, and divide each label's examples equally among its owners.

    With K labels, client i owns label ``i % K`` and ``k - 1`` others at random, all different.
    A label of n_l examples and m_l owners gives each ``n_l // m_l`` of them, and one more to
    ``n_l % m_l`` owners drawn by lot: who owns a label that is scarcer than its owners may get
    none of it.

    Args:
        labels: The class of each example; the K labels that occur are the ones to own.
        clients: How many clients, between 1 and the number of examples.
        per_client: Labels that a client owns, k, from 1 to K.
        rng: Where labels, lots, examples and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client, none empty; every example exactly
        once.

    Raises:
        ValueError: If a number is out of range, or ``clients * per_client`` is below K, so that
            a label would have no owner.

    Source: Li et al., arXiv 2102.02079, "Label Distribution Skew" (quantity-based label
    imbalance); the first label is that of its code, NIID-Bench's ``utils.py``. Derived: with
    fewer clients than labels, the labels without an owner are dealt first; the lot for a rest,
    which in the code goes to low numbers; and drawing anew where a client is empty, at most
    `partitions.deal.repair.TRIES` times, after which the largest client gives it one example.
    """
    check_clients(len(labels), clients, min_size=1)
    class_sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    _check_labels(len(class_sizes), clients, per_client)

    def draw() -> Int64[np.ndarray, "classes clients"]:
        return _divide(class_sizes, _own(len(class_sizes), clients, per_client, rng), rng)

    return deal_out(by_class(labels, rng), draw, 1, rng)


def _check_labels(classes: int, clients: int, per_client: int) -> None:
    if not 1 <= per_client <= classes:
        raise ValueError(
            f"partition.labels is {per_client}, but there are {classes} labels: "
            f"set it from 1 to {classes}"
        )
    if clients * per_client < classes:
        raise ValueError(
            f"partition.clients x partition.labels is {clients} x {per_client} = "
            f"{clients * per_client}, but there are {classes} labels, which all need an owner: "
            f"set partition.labels to {-(-classes // clients)} or more, "
            f"or partition.clients to {-(-classes // per_client)} or more"
        )


def _own(
    classes: int, clients: int, per_client: int, rng: np.random.Generator
) -> Bool[np.ndarray, "classes clients"]:
    """Draw who owns which label."""
    # A client owns the labels of its lowest lots: 0 is taken, (0, 1] is chance.
    lots = 1 - rng.random((clients, classes))
    lots[np.arange(clients), np.arange(clients) % classes] = 0
    ownerless = rng.permutation(np.arange(min(clients, classes), classes))
    lots[np.arange(len(ownerless)) % clients, ownerless] = 0
    owns = np.zeros((classes, clients), dtype=np.bool_)
    mine = np.argpartition(lots, per_client - 1, axis=1)[:, :per_client]
    owns[mine.T, np.arange(clients)] = True
    return owns


def _divide(
    class_sizes: Int64[np.ndarray, " classes"],
    owns: Bool[np.ndarray, "classes clients"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, "classes clients"]:
    """Say how many examples of each class go to each client."""
    counts = np.zeros(owns.shape, dtype=np.int64)
    for row, holds, size in zip(counts, owns, class_sizes.tolist(), strict=True):
        owners = rng.permutation(np.flatnonzero(holds))
        row[owners] = size // len(owners)
        row[owners[: size % len(owners)]] += 1
    return counts
