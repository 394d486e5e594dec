"""Who gets the next runs: looks at fixed numbers of blocks."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from experiments.statistics.paired import Differences
from experiments.statistics.power import ALPHA
from experiments.statistics.verdicts import Judgement, Verdict, judge

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Look(Generic[Name]):
    """What was judged at one look."""

    n: int
    """Blocks."""
    judged: Mapping[Name, Judgement]
    """The contrasts that were live."""


@dataclass(frozen=True)
class Race(Generic[Name]):
    """Where a race stands."""

    looks: tuple[Look[Name], ...]
    """All that were made, the first one first."""
    live: tuple[Name, ...]
    """Contrasts that are not decided."""
    wanted: int
    """Blocks that each live contrast has to have at the next look; 0: the race is over."""

    @property
    def judged(self) -> dict[Name, Judgement]:
        """What each contrast came to at its last look; of those that had one."""
        return {name: one for look in self.looks for name, one in look.judged.items()}


def race(
    contrasts: Mapping[Name, Differences],
    margin: float | None,
    looks: Sequence[int],
    alpha: float = ALPHA,
    family: int | None = None,
) -> Race[Name]:
    """Say from the runs that are there which contrasts are decided, and which need more blocks.

    Blocks are played whole: every live contrast gets block s before any gets block s + 1. At each
    of L looks, live contrasts are judged at α / L, so that all looks together keep α (Bonferroni);
    the family is that of the beginning. A contrast that is decided gets no further block. The
    answer is a function of the differences alone, so that a race is repeated by replaying it.

    Args:
        contrasts: differences by block of each, in the order of blocks; larger is better.
        margin: see `judge`.
        looks: at how many blocks, rising.
        alpha: error of the whole race.
        family: how many contrasts it has; None: these.
    """
    live, size, made = tuple(contrasts), family or len(contrasts), list[Look[Name]]()
    for n in looks:
        if not live:
            break
        if any(len(contrasts[name]) < n for name in live):
            return Race(tuple(made), live, n)
        now = {name: contrasts[name][:n] for name in live}
        judged = judge(now, margin, alpha / len(looks), size)
        made.append(Look(n, judged))
        live = tuple(name for name in live if judged[name].verdict in (None, Verdict.UNDECIDED))
    return Race(tuple(made), live, 0)
