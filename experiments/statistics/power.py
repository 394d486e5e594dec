"""How many blocks it takes, and what a number of blocks can show."""

import math
from collections.abc import Callable

import numpy as np
from scipy.integrate import fixed_quad
from scipy.optimize import root_scalar
from scipy.special import ndtr, stdtrit
from scipy.stats import chi, nct

ALPHA, POWER = 0.05, 0.8
_MOST = 100_000
"""Blocks; more are as good as none."""


def power_of_difference(n: int, effect: float, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided paired t test of n differences is significant.

    P(|T| > t(1 - α/2; n - 1)), T noncentral t with n - 1 degrees of freedom and δ√n / σ.

    Args:
        n: differences.
        effect: the true mean difference in units of their standard deviation, δ / σ.
        alpha: of the test; of the first of m tests by Holm: 0.05 / m.
    """
    limit, shift = stdtrit(n - 1, 1 - alpha / 2), abs(effect) * math.sqrt(n)
    upper = float(nct.sf(limit, n - 1, shift))  # the other tail is not a finding
    return upper if math.isfinite(upper) else 1.0


def power_of_equivalence(n: int, sd: float, margin: float, alpha: float = ALPHA) -> float:
    """Return the probability that two one-sided t tests find a true difference of 0 within ± m.

    They do where |mean| < m - t(1 - α; n - 1) s / √n. Given s, the mean is normal; s √(n - 1) / σ
    is chi-distributed with n - 1 degrees of freedom, over which the probability is integrated.
    """
    limit, ratio = stdtrit(n - 1, 1 - alpha), margin * math.sqrt(n) / sd
    scale = math.sqrt(n - 1)

    def found(u: np.ndarray) -> np.ndarray:  # u = s / σ
        return (2 * ndtr(ratio - limit * u) - 1) * chi.pdf(u * scale, n - 1) * scale

    begin, end = max(0.0, 1 - 6 / scale), min(ratio / limit, 1 + 6 / scale)
    return float(fixed_quad(found, begin, end, n=64)[0]) if end > begin else 0.0


def blocks_for_difference(
    sd: float, difference: float, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Return the least n at which a two-sided paired t test finds a difference with some power.

    It is never so small that the sign-flip test could not: its least p is 2 / 2ⁿ.

    Args:
        sd: standard deviation σ of the differences.
        difference: the true mean difference δ, in the same unit.
        alpha: see `power_of_difference`.
        power: the probability to find it.
    """
    least = max(2, math.ceil(math.log2(2 / alpha)))
    return _least(least, lambda n: power_of_difference(n, difference / sd, alpha) >= power)


def blocks_for_equivalence(
    sd: float, margin: float, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Return the least n at which equality is found with some power, if the difference is 0."""
    return _least(2, lambda n: power_of_equivalence(n, sd, margin, alpha) >= power)


def least_detectable(n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the difference, in standard deviations, that n blocks show with some power."""
    found = root_scalar(lambda e: power_of_difference(n, e, alpha) - power, bracket=(1e-6, 50.0))
    return float(found.root)


def _least(start: int, enough: Callable[[int], bool]) -> int:
    """Return the least number from `start` on that is enough, by doubling and bisection."""
    if enough(start):
        return start
    low, high = start, 2 * start
    while not enough(high) and high < _MOST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
