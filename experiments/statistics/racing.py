"""Who gets the next runs: looks at fixed numbers of blocks."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from experiments.statistics.power import ALPHA
from experiments.statistics.verdicts import Judgement, Verdict, judge

Name = TypeVar("Name", bound=Hashable)
Block = TypeVar("Block", bound=Hashable)


@dataclass(frozen=True)
class Look(Generic[Name]):
    """What was judged at one look."""

    n: int
    """Blocks."""
    judged: Mapping[Name, Judgement]
    """The contrasts that were not decided before."""


@dataclass(frozen=True)
class Race(Generic[Name]):
    """Where a race stands."""

    looks: tuple[Look[Name], ...]
    """All that were made, the first one first."""
    needs: Mapping[Name, int]
    """How many blocks each contrast needs: those of the look that decided it, or else of the next
    one, or of the last."""
    over: bool
    """Whether all is decided, or the last look was made."""

    @property
    def judged(self) -> dict[Name, Judgement]:
        """What each contrast came to at its last look; of those that had one."""
        return {name: one for look in self.looks for name, one in look.judged.items()}


def race(
    contrasts: Mapping[Name, Mapping[Block, float]],
    blocks: Sequence[Block],
    margin: float | None,
    looks: Sequence[int],
    alpha: float = ALPHA,
    family: int | None = None,
) -> Race[Name]:
    """Say from the runs that are there which contrasts are decided, and who needs more blocks.

    A look at n is about the first n blocks and no other, and waits until all undecided contrasts
    have them. At each of L looks they are judged at α / L, so that all looks together keep α
    (Bonferroni); the family is that of the beginning. A contrast that is decided gets no further
    block. The answer is a function of the differences alone, so that a race is repeated by
    replaying it.

    Args:
        contrasts: differences by block of each; larger is better.
        blocks: all that are planned, in their order.
        margin: see `judge`.
        looks: at how many blocks, rising.
        alpha: error of the whole race, of each of `judge`'s two kinds.
        family: how many contrasts it has; None: these.
    """
    size, made = family or len(contrasts), list[Look[Name]]()
    needs, live = dict.fromkeys(contrasts, 0), list(contrasts)
    for n in looks if contrasts else ():
        first = blocks[:n]
        needs |= dict.fromkeys(live, n)
        if any(not contrasts[name].keys() >= set(first) for name in live):
            return Race(tuple(made), needs, False)
        now = {name: [contrasts[name][block] for block in first] for name in live}
        judged = judge(now, margin, alpha / len(looks), size)
        made.append(Look(n, judged))
        live = [name for name, one in judged.items() if one.verdict in (None, Verdict.UNDECIDED)]
        if not live:
            break
    return Race(tuple(made), needs, True)
