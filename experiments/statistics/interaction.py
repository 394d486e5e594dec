"""Does it hold up? What skew costs one network, compared with what it costs another."""

from collections.abc import Sequence

import numpy as np
from scipy.special import logit
from scipy.stats import bootstrap

from experiments.statistics.endpoints import LEVEL
from experiments.statistics.paired import RESAMPLES
from fl.reproducibility.seeds import stream

Scores = Sequence[float] | np.ndarray
"""Accuracies, one a block; those of one call have the same blocks in the same order."""


def interaction(
    skewed: Scores, skewed_reference: Scores, even: Scores, even_reference: Scores
) -> np.ndarray:
    """Return by how much more of its odds a network keeps than the reference, a number a block.

    [logit Y - logit Y_ref] under skew less the same with even clients. On the scale of log odds a
    network that begins higher does not seem to lose more. Above 0: it holds up better. Its interval
    and p value are those of `paired`.

    Raises:
        ValueError: an accuracy is 0 or 1, whose odds are not finite.
    """
    found = [np.asarray(y, dtype=float) for y in (skewed, skewed_reference, even, even_reference)]
    if any(((y <= 0) | (y >= 1)).any() for y in found):
        raise ValueError("an accuracy of 0 or 1 has no finite log odds")
    a, b, c, d = (logit(y) for y in found)
    return (a - b) - (c - d)


def retained(skewed: Scores, even: Scores, chance: float) -> float:
    """Return the share of what was learned that skew leaves.

    (mean Y_skewed - chance) / (mean Y_even - chance).
    """
    return float((np.mean(skewed) - chance) / (np.mean(even) - chance))


def retained_interval(
    skewed: Scores, even: Scores, chance: float, level: float = LEVEL
) -> tuple[float, float]:
    """Return the bootstrap interval of `retained`; blocks are drawn whole, 9,999 times.

    Source: `scipy.stats.bootstrap`, percentiles: a ratio has no simple bias correction.

    Raises:
        ValueError: there are fewer than two blocks.
    """

    def share(skewed: np.ndarray, even: np.ndarray, axis: int = -1) -> np.ndarray:
        return (skewed.mean(axis) - chance) / (even.mean(axis) - chance)

    drawn = bootstrap(
        (np.asarray(skewed, dtype=float), np.asarray(even, dtype=float)),
        share,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=stream(0, "retained"),
    ).confidence_interval
    return float(drawn.low), float(drawn.high)


def retained_beyond(
    own: tuple[Scores, Scores], reference: tuple[Scores, Scores], chance: float
) -> np.ndarray:
    """Return by how much more of its lead a network keeps than the reference, a number a block.

    Their mean is `retained` less the reference's, and their t interval is its interval: a ratio
    r = mean a / mean b is linear near its mean, where a block moves it by (a - r b) / mean b. A
    percentile bootstrap of so few blocks is too narrow.

    Source: the delta method, as of the ratio estimator in Cochran, Sampling Techniques, 1977.

    Args:
        own: accuracies under skew, and with even clients.
        reference: those of the reference, in the same blocks.
        chance: the accuracy of who guesses.
    """

    def moved(skewed: Scores, even: Scores) -> np.ndarray:
        share = retained(skewed, even, chance)
        lead, whole = (np.asarray(y, dtype=float) - chance for y in (skewed, even))
        return share + (lead - share * whole) / whole.mean()

    return moved(*own) - moved(*reference)
