"""Check a deal that anybody's function has made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64


def check_deal(
    parts: object, examples: int, clients: int, min_size: int
) -> list[Int64[np.ndarray, " _"]]:
    """Return a deal as index arrays, if no example is dealt twice.

    Args:
        parts: What was returned: for each client, the indices of its examples.
        examples: How many examples there are.
        clients: How many clients they are dealt to.
        min_size: 0 allows clients without examples; any other number allows none.

    Returns:
        The same indices, one array a client, in their order. An example may be nobody's.

    Raises:
        ValueError: If there are not as many arrays as clients, an index is no whole number or no
            example's, an example is dealt twice, or a client has none; the message names both.
    """
    if not isinstance(parts, Sequence | np.ndarray):
        raise ValueError(
            f"it returned {type(parts).__name__}, expected a list of {clients} index arrays, one "
            "for each client"
        )
    if len(parts) != clients:
        raise ValueError(f"it returned {len(parts)} index arrays for {clients} clients")
    found = [_indices(part, client, examples) for client, part in enumerate(parts)]
    _check_once(found, examples)
    empty = next((client for client, part in enumerate(found) if not len(part)), None)
    if min_size and empty is not None:
        raise ValueError(
            f"client {empty} has no example; give it one, or set partition.min-size to 0, which "
            "allows that"
        )
    return found


def _indices(part: Any, client: int, examples: int) -> Int64[np.ndarray, " _"]:
    """Return one client's indices, each of which is an example's."""
    try:
        indices = np.asarray(part)
    except ValueError:
        raise ValueError(f"client {client} has a ragged list, expected indices") from None
    if indices.ndim != 1:
        raise ValueError(
            f"client {client} has an array of shape {indices.shape}, expected one dimension"
        )
    if not len(indices):
        return np.empty(0, np.int64)
    if indices.dtype.kind not in "iu":
        hint = "; np.flatnonzero turns a mask into them" if indices.dtype.kind == "b" else ""
        raise ValueError(f"client {client} has {indices.dtype} values, expected indices{hint}")
    outside = np.flatnonzero((indices < 0) | (indices >= examples))
    if len(outside):
        raise ValueError(
            f"client {client} has the example {indices[outside[0]]}, but examples are 0 to "
            f"{examples - 1}"
        )
    return indices.astype(np.int64)


def _check_once(parts: list[Int64[np.ndarray, " _"]], examples: int) -> None:
    """Refuse a deal in which an example occurs twice."""
    dealt = np.concatenate(parts)
    times = np.bincount(dealt, minlength=examples)
    if len(twice := np.flatnonzero(times > 1)):
        example = int(twice[0])
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        first, second = owners[dealt == example][:2].tolist()
        whose = f"client {first} twice" if first == second else f"clients {first} and {second}"
        raise ValueError(f"example {example} is dealt to {whose}; deal each one once at most")
