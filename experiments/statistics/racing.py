"""Who gets the next runs: looks at fixed numbers of blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.statistics.power import ALPHA
from experiments.statistics.verdicts import Judgement, Verdict, judge

LOOKS = (6, 8, 10, 12, 16, 20)
"""Numbers of blocks at which contrasts are judged, and no other."""


@dataclass(frozen=True)
class Look:
    """What was judged at one look."""

    n: int
    judged: Mapping[str, Judgement]
    """Those contenders that were live, by name."""


@dataclass(frozen=True)
class Race:
    """Where a race stands."""

    looks: tuple[Look, ...]
    """All that were made, the first one first."""
    live: tuple[str, ...]
    """Contenders that are not decided."""
    wanted: int
    """Blocks that each live contender and the reference have to have at the next look; 0: the race
    is over."""


def race(
    scores: Mapping[str, Sequence[float]],
    reference: str,
    margin: float | None,
    looks: Sequence[int] = LOOKS,
    alpha: float = ALPHA,
) -> Race:
    """Say from the runs that are there which contenders are decided, and who needs more blocks.

    Blocks are played whole: every live contender gets block s. At each look, contrasts with the
    reference are judged at α / L, so that L looks together keep α; the family is that of the
    beginning. A contender that is decided gets no further block. The answer is a function of the
    table alone, so that a race is repeated by replaying it.

    Args:
        scores: by contender, one a block, all in the same order of blocks.
        reference: the contender that the others are compared with.
        margin: see `judge`.
        looks: at how many blocks.
        alpha: error of the whole race.
    """
    live = tuple(name for name in scores if name != reference)
    family, made = len(live), list[Look]()
    for n in looks:
        if not live:
            break
        if any(len(scores[name]) < n for name in (reference, *live)):
            return Race(tuple(made), live, n)
        pairs = {name: zip(scores[name][:n], scores[reference][:n], strict=True) for name in live}
        contrasts = {name: [y - other for y, other in pair] for name, pair in pairs.items()}
        judged = judge(contrasts, margin, alpha / len(looks), family)
        made.append(Look(n, judged))
        live = tuple(name for name in live if judged[name].verdict in (None, Verdict.UNDECIDED))
    return Race(tuple(made), live, 0)
