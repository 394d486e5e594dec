"""What a comparison comes to, in one of five words, or in none where there are too few blocks."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np

from experiments.statistics.endpoints import FEWEST
from experiments.statistics.paired import Differences, holm, sign_flip, t_interval, tost
from experiments.statistics.power import ALPHA, blocks_for_difference, blocks_for_equivalence

Name = TypeVar("Name", bound=Hashable)


class Verdict(StrEnum):
    """What is known of a difference."""

    BETTER = "BETTER"
    """By more than nothing, and its mean is no smaller than the margin."""
    BETTER_SMALL = "BETTER-SMALL"
    """By more than nothing, and its mean is smaller than the margin."""
    EQUIVALENT = "EQUIVALENT"
    """Within ± the margin."""
    WORSE = "WORSE"
    """By more than nothing."""
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what it rests on."""

    verdict: Verdict | None
    """None with fewer than five blocks."""
    n: int
    """Blocks."""
    mean: float
    """Of the differences."""
    interval: tuple[float, float] | None
    """Student's, at 95 %; None without a verdict."""
    p: float
    """Of the sign-flip test, adjusted for the family by Holm."""
    p_equivalent: float
    """Of two one-sided tests, adjusted likewise; 1 without a margin."""
    sd: float = 0.0
    """Of the differences."""
    margin: float | None = None
    alpha: float = ALPHA
    """Of the first step of Holm: that of the family over its size."""

    @property
    def more(self) -> int | None:
        """Blocks that are still needed; None where it is decided, or nothing tells.

        As many as find a true difference of the margin, or of nothing, with probability 0.8 in the
        first step of Holm, whichever takes more, if the spread is as it was.
        """
        if self.verdict is not Verdict.UNDECIDED or not self.margin or not self.sd:
            return None
        differs = blocks_for_difference(self.sd, self.margin, self.alpha)
        equals = blocks_for_equivalence(self.sd, self.margin, self.alpha)
        return max(0, max(differs, equals) - self.n) or None

    def __str__(self) -> str:
        if self.verdict is None:
            return ""
        return f"{self.verdict} ({self.more} more)" if self.more else str(self.verdict)


def judge(
    contrasts: Mapping[Name, Differences],
    margin: float | None,
    alpha: float = ALPHA,
    family: int | None = None,
) -> dict[Name, Judgement]:
    """Judge the contrasts of one family.

    A contrast is better or worse if its sign-flip test, and equivalent if its two one-sided tests
    are below α after Holm's adjustment over the family. Each of the two kinds of error keeps α by
    itself: a difference that is none, and an equivalence that is none. Of a single contrast one of
    the two null hypotheses is false, so there both together keep it, too.

    Args:
        contrasts: differences by block of each, larger is better.
        margin: the smallest difference that matters; None where nobody said one.
        alpha: error of the family.
        family: how many contrasts it has; None: these.

    Returns:
        A judgement a contrast, in their order.
    """
    tested = {key: d for key, d in contrasts.items() if len(d) >= FEWEST}
    size = family or len(contrasts)
    p = dict(zip(tested, holm([sign_flip(d) for d in tested.values()], size), strict=True))
    equal = [tost(d, margin) if margin else 1.0 for d in tested.values()]
    q = dict(zip(tested, holm(equal, size), strict=True))
    found = {}
    for key, d in contrasts.items():
        if key not in tested:
            found[key] = unjudged(d)
            continue
        mean = float(np.mean(d))
        verdict = _verdict(mean, p[key] < alpha, q[key] < alpha, margin)
        numbers = (t_interval(d), p[key], q[key], float(np.std(d, ddof=1)))
        found[key] = Judgement(verdict, len(d), mean, *numbers, margin, alpha / size)
    return found


def unjudged(d: Differences) -> Judgement:
    """Return what is known of differences without a verdict: how many there are, and their mean."""
    mean = float(np.mean(d)) if len(d) else float("nan")
    return Judgement(None, len(d), mean, None, 1.0, 1.0)


def _verdict(mean: float, differs: bool, equal: bool, margin: float | None) -> Verdict:
    if differs and mean < 0:
        return Verdict.WORSE
    if differs:
        return Verdict.BETTER if margin is None or mean >= margin else Verdict.BETTER_SMALL
    return Verdict.EQUIVALENT if equal else Verdict.UNDECIDED
