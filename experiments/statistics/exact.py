"""Exact tests of counts, and times that were not seen to their end."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import CensoredData, binomtest, logrank

from experiments.statistics.endpoints import LEVEL

Times = Sequence[tuple[int, bool]]
"""Of `endpoints.rounds_to`, one a run."""


def log_rank(first: Times, second: Times) -> float:
    """Return the p value of the log rank test that two groups of runs take equally many rounds.

    Source: `scipy.stats.logrank`. Censored times count as long as they were seen. Where no run of
    either group was seen to get there, or all do at the same time, nothing tells them apart: 1.
    """
    groups = [
        CensoredData(
            uncensored=[time for time, reached in times if reached],
            right=[time for time, reached in times if not reached],
        )
        for times in (first, second)
    ]
    with np.errstate(invalid="ignore"):  # 0 / 0, where nothing tells them apart
        p = float(logrank(*groups).pvalue)
    return 1.0 if math.isnan(p) else p


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
