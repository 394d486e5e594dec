"""Differences in pairs, one a block: one draw of deal, first weights, clients and order."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import bootstrap

from experiments.statistics.endpoints import LEVEL
from fl.reproducibility.seeds import stream

FEWEST_RESAMPLED = 10
"""Blocks from which on a bootstrap says more than the t interval."""
MOST_EXACT = 16
"""Blocks up to which all 2ⁿ signs are tried."""
RESAMPLES = 9999

Differences = Sequence[float] | np.ndarray


def t_interval(d: Differences, level: float = LEVEL) -> tuple[float, float]:
    """Return Student's interval of the mean difference: mean ± t(n - 1) sd / √n.

    It is that of `scipy.stats.ttest_1samp`. Where all differences are equal it has no width.

    Raises:
        ValueError: there are fewer than two.
    """
    d = _array(d)
    half = float(stdtrit(len(d) - 1, 0.5 + level / 2)) * _error(d)
    return float(d.mean()) - half, float(d.mean()) + half


def bca_interval(d: Differences, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the bias-corrected, accelerated bootstrap interval of the mean; None if n < 10.

    Source: `scipy.stats.bootstrap` with 9,999 resamples, the same at every call.
    """
    d = _array(d)
    if len(d) < FEWEST_RESAMPLED:
        return None
    if _constant(d):
        return float(d[0]), float(d[0])
    found = bootstrap(
        (d,), np.mean, n_resamples=RESAMPLES, confidence_level=level, rng=stream(0, "bootstrap")
    ).confidence_interval
    return float(found.low), float(found.high)


def sign_flip(d: Differences) -> float:
    """Return the two-sided p value of the permutation test that flips signs.

    If both are equally good, each d_s could as well have come with the other sign. p is the share
    of sign patterns with |Σ ±d_s| ≥ |Σ d_s|: of all 2ⁿ up to n = 16, so that it is at least
    2 / 2ⁿ; of 9,999 drawn ones and the observed one beyond. It is the p value of
    `scipy.stats.permutation_test(..., permutation_type="samples")`, whose loop takes 100 times as
    long.
    """
    d = _array(d)
    n = len(d)
    if n <= MOST_EXACT:
        signs = _half_of_all_signs(n)
    else:
        signs = stream(0, "signs").choice((-1.0, 1.0), (RESAMPLES, n))
        signs = np.vstack([np.ones(n), signs])
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums of one pattern round in one way
    return float(np.mean(np.abs(signs @ d) >= least))


@lru_cache(maxsize=8)
def _half_of_all_signs(n: int) -> np.ndarray:
    """Return 2ⁿ⁻¹ sign patterns as rows; the other half mirrors them."""
    return 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Return Holm's adjusted p values: those below α are significant in a family with error α.

    The i-th smallest is multiplied by m - i + 1, and is no smaller than the one before.

    Args:
        p: of the tests.
        family: m; None: as many as there are. More, where others of the family are not tested.
    """
    size, highest, found = family or len(p), 0.0, [0.0] * len(p)
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (size - place) * p[index]))
        found[index] = highest
    return found


def tost(d: Differences, margin: float) -> float:
    """Return the p value of two one-sided t tests: small if the mean is within ± the margin.

    p = max(p[mean ≤ -m], p[mean ≥ m]); at 0.05 it says that the 90 % interval is inside.

    Source: Schuirmann (1987); the t tests are those of `scipy.stats.ttest_1samp`.
    """
    d = _array(d)
    mean, error, freedom = float(d.mean()), _error(d), len(d) - 1
    if not error:
        return 0.0 if abs(mean) < margin else 1.0
    return float(stdtr(freedom, (abs(mean) - margin) / error))  # the nearer end decides


def _array(d: Differences) -> np.ndarray:
    found = np.asarray(d, dtype=float)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"differences of shape {found.shape}, expected two or more in a row")
    return found


def _error(d: np.ndarray) -> float:
    """Return the standard error of the mean, sd / √n; 0 if all are equal up to rounding."""
    return 0.0 if _constant(d) else float(d.std(ddof=1)) / math.sqrt(len(d))


def _constant(d: np.ndarray) -> bool:
    """Say whether differences are equal up to rounding, so that no spread can be told."""
    return bool(np.ptp(d) <= 1e-12 * np.abs(d).max())
