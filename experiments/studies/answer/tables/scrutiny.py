"""What would change the picture of block B2: another round, another scale, other test images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.report.results import Run
from experiments.statistics.images import apart
from experiments.statistics.interaction import interaction, retained_beyond
from experiments.statistics.paired import t_interval
from experiments.studies.answer.conditions import FULL, GUESSING, SKEWS
from experiments.studies.answer.hypotheses import BASELINE, KEPT, NEW
from experiments.studies.answer.judged import runs_of_look
from experiments.studies.answer.tables.words import NAMES, plain, points

ROUNDS = (3, 9, 21, 30, 45, FULL.base.rounds)
COMPARED = ("nf", *NEW, "none")
"""Contenders that are told beside BatchNorm."""
PAIRS = (
    ("zc-swish", "nf"),
    ("salunet", "nf"),
    ("zc-swish", BASELINE),
    ("salunet", BASELINE),
    ("nf", BASELINE),
)
"""Differences whose error by test images is told."""
LATE, LAST, CHOSEN = "late-mean", "last-round", "validated"
"""Endpoints, see `fl.config.parts.contrasts`."""
Runs = Mapping[tuple[str, str], Sequence[Run]]
"""By contender and skew, in the order of blocks."""


def tables(folder: Path) -> Iterator[Iterator[str]]:
    """Yield the three tables, of the runs of the last look.

    Args:
        folder: has a folder of tables a block.
    """
    runs = runs_of_look(folder)
    yield from (course(runs), scales(runs), other_images(runs))


def course(runs: Runs) -> Iterator[str]:
    """Yield the lead over BatchNorm after each of `ROUNDS`, in points.

    The last column is about the round that is best on validation images.
    """
    yield f"| clients | less BatchNorm | {' | '.join(f'round {n}' for n in ROUNDS)} | chosen |"
    yield f"|---|---|{'---|' * (len(ROUNDS) + 1)}"
    for skew in SKEWS:
        for name in COMPARED:
            own, other = runs[name, skew], runs[BASELINE, skew]
            leads = [_mean(_after(own, n)) - _mean(_after(other, n)) for n in ROUNDS]
            leads.append(_mean(_ys(own, CHOSEN)) - _mean(_ys(other, CHOSEN)))
            cells = " | ".join(map(points, leads))
            yield f"| {skew} | {NAMES[name]} | {cells} |"


def scales(runs: Runs) -> Iterator[str]:
    """Yield what contenders keep under skew beside BatchNorm: of log odds, and of their lead.

    Log odds by three endpoints: the last rounds, the last round, the round that validation chose.
    All intervals have the level of H3's.
    """
    heads = ("log odds, last rounds", f"round {ROUNDS[-1]}", "chosen", "share of lead, last rounds")
    yield f"| contender | clients | {' | '.join(heads)} |"
    yield f"|---|---|{'---|' * len(heads)}"
    even, *skewed = SKEWS
    for name in COMPARED:
        for skew in skewed:
            cells = []
            for endpoint in (LATE, LAST, CHOSEN):
                asked = [(name, skew), (BASELINE, skew), (name, even), (BASELINE, even)]
                kept = interaction(*(_ys(runs[cell], endpoint) for cell in asked))
                cells.append(f"{plain(float(kept.mean()))} {plain(*t_interval(kept, KEPT))}")
            own, other = (
                (_ys(runs[who, skew], LATE), _ys(runs[who, even], LATE)) for who in (name, BASELINE)
            )
            more = retained_beyond(own, other, GUESSING)
            cells.append(f"{points(float(more.mean()))} {points(*t_interval(more, KEPT))}")
            yield f"| {NAMES[name]} | {skew} | {' | '.join(cells)} |"


def other_images(runs: Runs) -> Iterator[str]:
    """Yield differences after the last round, with blocks drawn, and with test images drawn too."""
    yield "| clients | | less | difference | 95 %, other blocks | 95 %, other images, too |"
    yield "|---|---|---|---|---|---|"
    for skew in SKEWS:
        for name, other in PAIRS:
            own, theirs = _right(runs[name, skew]), _right(runs[other, skew])
            found = apart(own, theirs)
            ends = f"{points(*found.blocks)} | {points(*found.images)}"
            yield f"| {skew} | {NAMES[name]} | {NAMES[other]} | {points(found.mean)} | {ends} |"


def _after(runs: Sequence[Run], number: int) -> list[float]:
    """Return test accuracies after a round, which every run has."""
    told = [{line["round"]: line["test_accuracy"] for line in run.rounds} for run in runs]
    return [of_round[number] for of_round in told]


def _ys(runs: Sequence[Run], endpoint: str) -> list[float]:
    """Return what an endpoint says of runs."""
    return [replace(run, endpoint=endpoint).outcome for run in runs]


def _right(runs: Sequence[Run]) -> np.ndarray:
    """Return which test images were right after the last round, a row a run."""
    return np.stack([run.right for run in runs])  # pyrefly: ignore


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
