"""Measure how skewed a partition is: counts per client and class, and four figures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer


@dataclass(frozen=True)
class Skew:
    """How unequal clients are, in sizes and in their mixes of classes.

    Attributes:
        clients: How many clients.
        classes: How many classes.
        smallest: Size of the smallest client, in examples.
        median: Median size, in examples.
        largest: Size of the largest client, in examples.
        gini: Gini coefficient of the sizes, from 0 (all equal) to 1 - 1/clients (one has all).
        distance: Mean Jensen-Shannon distance of a client's mix of classes to the mix of all
            examples, from 0 (the same mix) to 1 (not a class in common).
        effective_classes: Mean effective number of classes of a client, from 1 to ``classes``.
    """

    clients: int
    classes: int
    smallest: int
    median: float
    largest: int
    gini: float
    distance: float
    effective_classes: float

    def __str__(self) -> str:
        return (
            f"{self.clients} clients of {self.smallest} to {self.largest} examples "
            f"(median {self.median:g}, Gini {self.gini:.2f}), on average "
            f"{self.effective_classes:.1f} effective classes of {self.classes} and "
            f"Jensen-Shannon distance {self.distance:.2f} from the mix of all"
        )


def counts(
    labels: Integer[np.ndarray, " examples"],
    parts: list[Int64[np.ndarray, " _"]],
    classes: int,
) -> Int64[np.ndarray, "clients classes"]:
    """Count each client's examples of each class: ``[i, k] = #{j in parts[i]: labels[j] = k}``.

    Args:
        labels: The class of each example, from 0 to ``classes - 1``.
        parts: One array of indices into ``labels`` a client.
        classes: How many classes there are, also such as no example has.

    Returns:
        Numbers of examples.

    Raises:
        ValueError: If a label is negative or not below ``classes``.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {classes} "
            f"classes: number the classes from 0 to {classes - 1}"
        )
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    cells = owners * classes + labels[np.concatenate(parts)]
    return np.bincount(cells, minlength=len(parts) * classes).reshape(len(parts), classes)


def measure(counts: Int64[np.ndarray, "clients classes"]) -> Skew:
    """Measure how skewed a partition is.

    With ``p_i`` the mix of client i, ``g`` that of all examples, ``m = (p_i + g) / 2`` and
    ``KL`` in bits, the distance is ``sqrt((KL(p_i, m) + KL(g, m)) / 2)``; the effective number
    of classes is ``exp(-sum_k p_ik ln p_ik)``. Both are means over the clients that have
    examples, each counted once whatever its size. With sizes ``s_1 <= ... <= s_n`` the Gini
    coefficient is ``sum_i (2i - n - 1) s_i / (n sum_i s_i)``, empty clients included.

    Args:
        counts: How many examples of each class each client has.

    Returns:
        The figures.

    Raises:
        ValueError: If no client has an example.

    Source: Endres and Schindelin, IEEE Trans. Inf. Theory 49(7), 2003 (the square root is a
    metric); Hill, Ecology 54(2), 1973 (effective number, order 1).
    """
    sizes = np.sort(counts.sum(axis=1))
    clients, total = len(sizes), sizes.sum()
    if total == 0:
        raise ValueError(f"none of the {clients} clients has an example: nothing to measure")
    ranks = np.arange(1, clients + 1)
    held = counts[counts.sum(axis=1) > 0]
    mixes = held / held.sum(axis=1, keepdims=True)
    whole = np.broadcast_to(counts.sum(axis=0) / total, mixes.shape)
    middles = (mixes + whole) / 2
    divergence = (_relative_entropy(mixes, middles) + _relative_entropy(whole, middles)) / 2
    # Relative to a measure of ones, relative entropy is entropy with its sign changed.
    entropy = -_relative_entropy(mixes, np.ones_like(mixes))
    return Skew(
        clients=clients,
        classes=counts.shape[1],
        smallest=int(sizes[0]),
        median=float(np.median(sizes)),
        largest=int(sizes[-1]),
        gini=float(((2 * ranks - clients - 1) * sizes).sum() / (clients * total)),
        distance=float(np.sqrt(np.clip(divergence, 0, 1)).mean()),
        effective_classes=float(np.exp2(entropy).mean()),
    )


def _relative_entropy(
    p: Float64[np.ndarray, "clients classes"], q: Float64[np.ndarray, "clients classes"]
) -> Float64[np.ndarray, " clients"]:
    """``sum_k p_k log2(p_k / q_k)`` of each row, in bits, with 0 log 0 = 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log2(ratio)).sum(axis=1)
