"""What is compared: one number a run, and what can be said of a single one."""

import math
from collections.abc import Callable, Sequence

from scipy.stats import CensoredData, binomtest, logrank

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


Times = Sequence[tuple[int, bool]]
"""Of `rounds_to`, one a run."""


def log_rank(first: Times, second: Times) -> float:
    """Return the p value of the log rank test that two groups of runs take equally many rounds.

    Source: `scipy.stats.logrank`. Censored times count as long as they were seen.
    """
    groups = [
        CensoredData(
            uncensored=[time for time, reached in times if reached],
            right=[time for time, reached in times if not reached],
        )
        for times in (first, second)
    ]
    return float(logrank(*groups).pvalue)


def exact_interval(right: int, images: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of an accuracy.

    Args:
        right: how many of the test images were named correctly.
        images: how many there are.
        level: of confidence.
    """
    found = binomtest(right, images).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def collapsed(accuracy: float, images: int, chance: float, level: float = LEVEL) -> bool:
    """Say whether an accuracy can't be told from guessing: its exact interval is not above chance.

    Args:
        accuracy: a share of the test images.
        images: how many there are.
        chance: what the best constant answer gives.
        level: of the interval.
    """
    low, _ = exact_interval(round(accuracy * images), images, level)
    return low <= chance


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the exact p value of McNemar's test that two outcomes are equally frequent in pairs.

    Of b pairs in which only the first holds and c in which only the second does, b is binomial
    (b + c, 1/2) if they are; pairs that agree say nothing.

    Args:
        first: whether it holds, one a pair: a collapse a block, or a right answer a test image.
        second: the same of what it is compared with, in the same order.
    """
    pairs = list(zip(first, second, strict=True))
    only = sum(a and not b for a, b in pairs)
    other = sum(b and not a for a, b in pairs)
    return float(binomtest(only, only + other).pvalue) if only + other else 1.0
