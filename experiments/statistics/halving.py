"""Who goes on in successive halving, and what is tried beside a winner at an edge of its grid."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def halved(scores: Mapping[Name, float], factor: float = 2) -> list[Name]:
    """Return the best ⌈n / η⌉ of n candidates, in the order in which they are given.

    This is a rung of successive halving (arXiv 1502.07943). Of equal ones the first goes on.

    Args:
        scores: on validation images, larger is better, by candidate.
        factor: η.
    """
    best = sorted(scores, key=lambda name: -scores[name])[: math.ceil(len(scores) / factor)]
    return [name for name in scores if name in best]


def extended(values: Sequence[float], winner: float) -> float | None:
    """Return the value to try beside a winner at an edge of its grid; None inside.

    It is as far from the edge as the edge is from its neighbour, as a ratio, and has four
    significant digits. A single value, and numbers that are not positive, have no such ratio.

    Args:
        values: of the grid, in any order.
        winner: one of them.
    """
    grid = sorted(set(values))
    if len(grid) < 2 or winner not in (grid[0], grid[-1]):
        return None
    neighbour = grid[1] if winner == grid[0] else grid[-2]
    if winner <= 0 or neighbour <= 0:
        return None
    return float(f"{winner * winner / neighbour:.4g}")
