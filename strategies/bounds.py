"""How far an update may go: its norm, and the clip of private training (arXiv 1710.06963)."""

import math
from collections.abc import Collection

import numpy as np

from strategies.arrays import Arrays


def distance(arrays: Arrays, start: Arrays) -> float:
    """Return the 2-norm ``‖w - w_start‖`` over all tensors together, in float64."""
    squares = (
        np.square(array.astype(np.float64) - start[name]).sum() for name, array in arrays.items()
    )
    return math.sqrt(math.fsum(squares))


def clipped(
    arrays: Arrays, start: Arrays, norm: float, covered: Collection[str]
) -> dict[str, np.ndarray]:
    """Return a network that is at most `norm` from its start: ``s + min(1, C/‖w - s‖)·(w - s)``.

    Flower's `fixedclipping_mod` divides by zero where nothing has moved, and clips BatchNorm's
    statistics along; here an update within the norm stays as it is, bit for bit.

    Args:
        arrays: the network w after training.
        start: the network s before.
        norm: C.
        covered: names of the tensors that are clipped, together; all others stay as they are.
    """
    moved = {name: array for name, array in arrays.items() if name in covered}
    far = distance(moved, start)
    if far <= norm:
        return dict(arrays)
    shrunk = {}
    for name, array in moved.items():
        update = array.astype(np.float64) - start[name]
        shrunk[name] = np.asarray(start[name] + update * (norm / far), array.dtype)
    return {**arrays, **shrunk}
