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
    """The contrasts that were not decided before, and have all of these blocks."""


@dataclass(frozen=True)
class Race(Generic[Name]):
    """Where a race stands."""

    looks: tuple[Look[Name], ...]
    """All that were made, the first one first."""
    asked: Mapping[Name, int]
    """How many blocks each contrast asks for: those of the look that decided it, or else of the
    first look for which it lacks some, or of the last one."""

    @property
    def judged(self) -> dict[Name, Judgement]:
        """What each contrast came to at its last look; of those that had one."""
        return {name: one for look in self.looks for name, one in look.judged.items()}

    @property
    def over(self) -> bool:
        """Whether every contrast was judged with all blocks that it asks for."""
        judged = self.judged
        return all(name in judged and judged[name].n == n for name, n in self.asked.items())


def race(
    contrasts: Mapping[Name, Mapping[Block, float]],
    blocks: Sequence[Block],
    margin: float | None,
    looks: Sequence[int],
    alpha: float = ALPHA,
    family: int | None = None,
) -> Race[Name]:
    """Say from the runs that are there which contrasts are decided, and who needs more blocks.

    A look at n is about the first n blocks and no other. At each of L looks contrasts are judged at
    α / L, so that all looks together keep α (Bonferroni); the family is that of the beginning, and
    who is decided or lacks a block counts as not significant. A contrast that is decided gets no
    further block. The answer is a function of the differences alone, so that a race is repeated by
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
    asked = dict.fromkeys(contrasts, 0)
    live = list(contrasts)
    for n in looks:
        first = blocks[:n]
        for name in live:
            asked[name] = n
        ready = {
            name: [contrasts[name][block] for block in first]
            for name in live
            if contrasts[name].keys() >= set(first)
        }
        judged = judge(ready, margin, alpha / len(looks), size)
        if judged:
            made.append(Look(n, judged))
        live = [name for name, one in judged.items() if one.verdict in (None, Verdict.UNDECIDED)]
    return Race(tuple(made), asked)
