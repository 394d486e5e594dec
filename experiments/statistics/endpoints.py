"""What is compared: one number a run."""

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from fl.config.parts.contrasts import FEWEST as FEWEST

Block = TypeVar("Block", bound=Hashable)

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


def differences(
    here: Mapping[Block, float], reference: Mapping[Block, float]
) -> dict[Block, float]:
    """Return d_s = Y_s - Y_ref,s for each block s that both have, in the order of the first."""
    return {block: y - reference[block] for block, y in here.items() if block in reference}


def worst_tenth(values: Sequence[float], goodness: Callable[[float], float] = float) -> float:
    """Return the mean over the worst ⌈n / 10⌉ of n clients.

    Args:
        values: one a client.
        goodness: is the larger, the better a value is.
    """
    worst = sorted(values, key=goodness)[: math.ceil(len(values) / 10)]
    return math.fsum(worst) / len(worst)


def rounds_to(scores: Sequence[tuple[int, float | None]], target: float) -> tuple[int, bool]:
    """Return the first round that reaches a target; if none does, the last one, and False.

    The second is a right-censored time: the run would have taken more than so many rounds.

    Args:
        scores: rounds and what was measured after them; None: nothing was, or no finite number.
        target: to reach or to exceed.
    """
    for number, score in scores:
        if score is not None and score >= target:
            return number, True
    return (scores[-1][0] if scores else 0), False


def median_time(times: Sequence[tuple[float, bool]]) -> float:
    """Return by when half of the runs have reached something; infinite if fewer ever do.

    A run that was not seen to get there counts as longer than all others.

    Args:
        times: one a run, and whether it was reached.
    """
    return statistics.median_low(time if reached else math.inf for time, reached in times)
