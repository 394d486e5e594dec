"""What the plan claims, worked out from runs: H1 to H6 of `docs/studies/answer/plan.md`.

It was written before block B2 ran. It knows tables of accuracies alone, so that anybody can repeat
it with the committed rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.statistics.endpoints import differences
from experiments.statistics.interaction import interaction, retained, retained_interval
from experiments.statistics.paired import t_interval
from experiments.statistics.power import blocks_for_difference
from experiments.statistics.verdicts import Judgement, Verdict, judge

Scores = Mapping[str, Mapping[int, float]]
"""Contender -> block -> the run's endpoint Y, a fraction; of one skew."""
LOOKS = (10, 12)
"""Numbers of blocks at which B2 is judged, and no other."""
ALPHA = 0.05 / len(LOOKS)
"""Error of a family at a look."""
KEPT = 1 - ALPHA / 4
"""Level of each of H3's four intervals, so that they have that of a look together (Bonferroni)."""
MARGIN, LARGER = 0.015, 0.03
"""The smallest difference that matters, and that of H4, as fractions."""
NO_GAP = "no gap"
"""H6 where BatchNorm may be no worse, so that there is nothing to close."""
NEW = ("zc-swish", "salunet")
BASELINE = "bn-average"
ASKED = ("leaky-relu", "swish")
"""Activations of ZC-Swish's gain whose mean output is further from 0."""
REMEDIES = ("bn-recalibrate", "bn-fixbn")
NO_NORMALIZER = ("none", "leaky-relu", "swish", *NEW)
"""Contenders that have neither a normalizer nor scaled weights."""


@dataclass(frozen=True)
class Claim:
    """A hypothesis at one place, and what runs say of it."""

    name: str
    """Such as `H1`."""
    where: str
    """Of which contender, and at which skew."""
    against: str
    holds: bool | None
    """None: undecided."""
    word: str
    """The verdict, or what was looked at."""
    value: float
    """What the contender has more than `against`: of accuracy (H1, H2, H5), of what it gains by
    the larger batch (H4), of log odds kept (H3). Of H6 a share (where there is no gap, the gap)."""
    interval: tuple[float, float] | None
    n: int
    """Blocks."""


def best_normalizer(validation: Mapping[str, float], takes_part: Sequence[str]) -> str:
    """Return the contender with a normalizer or scaled weights that tuning scored best.

    Args:
        validation: of one skew, the winners' validation accuracy by contender.
        takes_part: who has runs.
    """
    known = [name for name in takes_part if name in validation and name not in NO_NORMALIZER]
    return max(known, key=lambda name: validation[name])


def better(
    runs: Mapping[str, Scores], validation: Mapping[str, Mapping[str, float]]
) -> Iterator[Claim]:
    """Yield H1 and H2: ZC-Swish and SaluNet are better than the best-tuned normalizer, by skew.

    They are one family: at three skews six tests, adjusted by Holm.

    Args:
        runs: by skew.
        validation: by skew; see `best_normalizer`.
    """
    others = {skew: best_normalizer(validation[skew], list(of)) for skew, of in runs.items()}
    contrasts = {
        (name, skew): _differences(of, name, others[skew])
        for name in NEW
        for skew, of in runs.items()
    }
    for (name, skew), found in judge(contrasts, MARGIN, ALPHA).items():
        holds = _is_better(found)
        d = contrasts[name, skew]
        interval = t_interval(d, 1 - ALPHA) if len(d) > 1 else None
        yield Claim(
            f"H{1 + NEW.index(name)}", f"{name}, {skew}", others[skew], holds,
            str(found.verdict or ""), found.mean, interval, found.n,
        )  # fmt: skip


def holds_up(runs: Mapping[str, Scores], even: str) -> Iterator[Claim]:
    """Yield H3: beside BatchNorm, more of the log odds is kept under skew; see `interaction`.

    The level of its intervals is `KEPT`. Of what is undecided it says how many blocks more would
    decide it, if mean and spread are what they are.

    Args:
        runs: by skew.
        even: the name of the skew that is none.
    """
    skews = [skew for skew in runs if skew != even]
    for name in NEW:
        for skew in skews:
            asked = [(skew, name), (skew, BASELINE), (even, name), (even, BASELINE)]
            blocks = _shared([runs[where][who] for where, who in asked])
            a, b, c, d = ([runs[where][who][k] for k in blocks] for where, who in asked)
            kept = interaction(a, b, c, d)
            claim = Claim(
                "H3", f"{name}, {skew}", BASELINE, None, "log odds kept", float(kept.mean()),
                t_interval(kept, KEPT), len(kept),
            )  # fmt: skip
            found = _above(claim, 0)
            if found.holds is None:
                found = replace(found, word=f"{found.word} ({_more(kept)} more)")
            yield found


def micro_batches(runs: Mapping[int, Scores], small: int = 1, large: int = 4) -> Iterator[Claim]:
    """Yield H4: BatchNorm gains more by a larger batch than ZC-Swish and SaluNet do.

    Args:
        runs: by batch size, each with rates of its own, at one skew.
        small: the smaller batch.
        large: the larger one.
    """
    contrasts = dict[str, np.ndarray]()
    for name in NEW:
        asked = [(large, BASELINE), (small, BASELINE), (large, name), (small, name)]
        blocks = _shared([runs[size][who] for size, who in asked])
        a, b, c, d = (np.array([runs[size][who][k] for k in blocks]) for size, who in asked)
        contrasts[name] = (a - b) - (c - d)
    for name, found in judge(contrasts, LARGER).items():
        yield Claim("H4", BASELINE, name, _is_better(found), str(found.verdict or ""), found.mean,
                    found.interval, found.n)  # fmt: skip


def cause(runs: Scores, controls: Sequence[str] = ASKED) -> Iterator[Claim]:
    """Yield H5: zero-centring is the cause; refuted if an activation of the same gain is as good.

    Args:
        runs: of one skew; controls have the gain of ZC-Swish.
        controls: with whom it is compared.
    """
    contrasts = {name: _differences(runs, "zc-swish", name) for name in controls}
    for name, found in judge(contrasts, MARGIN).items():
        decided = {Verdict.EQUIVALENT: False, Verdict.BETTER: True, Verdict.WORSE: False}
        holds = decided.get(found.verdict) if found.verdict else None
        yield Claim("H5", "zc-swish", name, holds, str(found.verdict or ""), found.mean,
                    found.interval, found.n)  # fmt: skip


def closes_the_gap(runs: Scores) -> Iterator[Claim]:
    """Yield H6: a remedy closes half of BatchNorm's gap to ZC-Swish, at one skew.

    The share is (mean Y_remedy - mean Y_BN) / (mean Y_ZC - mean Y_BN), its interval a bootstrap of
    whole blocks; both remedies have one level together. Where the gap itself may be none, it alone
    is told, with its t interval at the level of a look.
    """
    gap = _differences(runs, "zc-swish", BASELINE)
    of_gap = t_interval(gap, 1 - ALPHA) if len(gap) > 1 else None
    if of_gap is None or of_gap[0] <= 0:
        yield Claim("H6", "zc-swish", BASELINE, None, NO_GAP, float(np.mean(gap)), of_gap,
                    len(gap))  # fmt: skip
        return
    for name in REMEDIES:
        blocks = _shared([runs[who] for who in (name, BASELINE, "zc-swish")])
        closed = [runs[name][k] - runs[BASELINE][k] for k in blocks]
        whole = [runs["zc-swish"][k] - runs[BASELINE][k] for k in blocks]
        interval = retained_interval(closed, whole, 0, 1 - ALPHA / len(REMEDIES))
        share = retained(closed, whole, 0)
        claim = Claim("H6", name, "zc-swish", None, "share closed", share, interval, len(blocks))
        yield _above(claim, 0.5)


def _is_better(found: Judgement) -> bool | None:
    return None if found.verdict in (None, Verdict.UNDECIDED) else found.verdict == Verdict.BETTER


def _above(claim: Claim, least: float) -> Claim:
    """Return a claim that holds if its interval lies above a number, and fails if below."""
    low, high = claim.interval or (-np.inf, np.inf)
    holds = True if low > least else False if high < least else None
    return replace(claim, holds=holds)


def _more(kept: np.ndarray) -> int:
    """Return how many blocks more would tell a mean from 0 with probability 0.8."""
    return blocks_for_difference(kept.std(ddof=1), kept.mean(), 1 - KEPT) - len(kept)


def _differences(of: Scores, name: str, other: str) -> list[float]:
    found = differences(of[name], of[other])
    return [found[block] for block in sorted(found)]


def _shared(columns: Sequence[Mapping[int, float]]) -> list[int]:
    """Return the blocks that all have, in order."""
    return sorted(set.intersection(*(set(column) for column in columns)))
