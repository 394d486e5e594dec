"""What is compared: one number a run."""

import math
from collections.abc import Callable, Sequence

from fl.config.parts.contrasts import FEWEST as FEWEST

LEVEL = 0.95
"""Of every interval that is not asked for at another level."""


def window(rounds: int) -> int:
    """Return over how many of the last rounds the primary endpoint is a mean: max(3, ⌈R / 10⌉).

    The last round alone jitters by several points. A run of fewer rounds gives all it has.
    """
    return min(rounds, max(3, math.ceil(rounds / 10)))


def late_mean(scores: Sequence[float]) -> float:
    """Return the primary endpoint: the mean score over the last max(3, ⌈R / 10⌉) rounds.

    Args:
        scores: after each of R rounds, the first round first; without the untrained network's.

    Raises:
        ValueError: there is no round.
    """
    if not scores:
        raise ValueError("no rounds, so no endpoint")
    late = scores[-window(len(scores)) :]
    return math.fsum(late) / len(late)


def worst_tenth(values: Sequence[float], goodness: Callable[[float], float] = float) -> float:
    """Return the mean over the worst ⌈n / 10⌉ of n clients.

    Args:
        values: one a client.
        goodness: is the larger, the better a value is.
    """
    worst = sorted(values, key=goodness)[: math.ceil(len(values) / 10)]
    return math.fsum(worst) / len(worst)


def rounds_to(scores: Sequence[float], target: float) -> tuple[int, bool]:
    """Return the first round (from 1) that reaches a target; if none does, the last, and False.

    The second is a right-censored time: the run would have taken more than so many rounds.
    """
    for number, score in enumerate(scores, start=1):
        if score >= target:
            return number, True
    return len(scores), False
