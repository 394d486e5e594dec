"""What committed rows say of batches of one: what skew costs there, and why BatchNorm fails."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.statistics.endpoints import differences
from experiments.statistics.interaction import retained, retained_beyond
from experiments.statistics.paired import t_interval
from experiments.studies import ledger
from experiments.studies.answer.conditions import FULL, GUESSING, SKEWS, contenders
from experiments.studies.answer.hypotheses import Scores
from experiments.studies.answer.mechanism import RUNNING
from experiments.studies.answer.rows import which
from experiments.studies.answer.tables.words import NAMES, points

FIRST = "nf"
"""Who is first at batches of one, and with whom others are compared."""
KINDS = {RUNNING: "running statistics", 1: "each image's own"}
"""Of statistics, by their names in rows."""
SURE = 0.1
"""Half of the interval of a lead over guessing, as a share of it, up to which what skew leaves of
the lead is told: `retained_beyond` is linear near a lead that is far from 0."""


def skew(runs: Mapping[str, Scores]) -> Iterator[str]:
    """Yield accuracy on even and on skewed clients, and what skew leaves of the lead over guessing.

    Differences are in points, with t intervals of 95 %; that of what is left is
    `retained_beyond`'s. Of a lead that is not sure nothing is told to be left.

    Args:
        runs: even, then skewed; see `judged.at_one`.
    """
    heads = ("contender", *runs, *(f"less NF, {where}" for where in runs))
    yield f"| {' | '.join(heads)} | left of the lead | left, less what NF has left | blocks |"
    yield "|---|---|---|---|---|---|---|---|"
    first = _skewed_and_even(runs, FIRST)
    for name in (name for name in NAMES if all(name in of for of in runs.values())):
        own = _skewed_and_even(runs, name)
        cells = [f"{100 * np.mean(ys):.1f}" for ys in reversed(own)]
        apart = [list(differences(of[name], of[FIRST]).values()) for of in runs.values()]
        cells += ["" if name == FIRST else _told(d) for d in apart]
        low, high = t_interval(np.array(own[1]) - GUESSING)
        if high - low <= SURE * (high + low):
            beyond = "" if name == FIRST else _told(retained_beyond(own, first, GUESSING).tolist())
            cells += [f"{100 * retained(*own, GUESSING):.0f} %", beyond]
        else:
            cells += ["", ""]
        yield f"| {NAMES[name]} | {' | '.join(cells)} | {len(own[0])} |"


def by_statistics(table: Path) -> Iterator[str]:
    """Yield accuracy and loss on test images by what normalizes them in evaluation.

    A row is a contender at a skew, and its figures are means over networks.

    Args:
        table: of `experiments.studies.answer.mechanism`.
    """
    rows = [row for _, row in ledger.rows(table)]
    kinds = list(dict.fromkeys(row["statistics"] for row in rows))
    heads = [KINDS.get(kind, f"those of {kind} images") for kind in kinds]
    yield f"| clients | contender | networks | {' | '.join(heads)} |"
    yield f"|---|---|---|{'---|' * len(kinds)}"
    known = contenders(FULL.base.rounds)
    for where, name in itertools.product(SKEWS, known):
        of = [row for row in rows if (which(row, SKEWS), which(row, known)) == (where, name)]
        if of:
            cells = [_scored([row for row in of if row["statistics"] == kind]) for kind in kinds]
            networks = len({row["model_sha256"] for row in of})
            yield f"| {where} | {NAMES[name]} | {networks} | {' | '.join(cells)} |"


def _skewed_and_even(runs: Mapping[str, Scores], name: str) -> tuple[list[float], list[float]]:
    even, skewed = ([of[name][block] for block in sorted(of[name])] for of in runs.values())
    return skewed, even


def _told(d: Sequence[float]) -> str:
    return f"{points(float(np.mean(d)))} {points(*t_interval(d))}"


def _scored(rows: Sequence[Mapping]) -> str:
    ys, losses = ([float(row[key]) for row in rows] for key in ("accuracy", "loss"))
    return f"{100 * np.mean(ys):.1f} (loss {np.mean(losses):.2f})"
