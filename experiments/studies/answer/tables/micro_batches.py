"""What committed rows say of batches of one: what skew costs there, and why BatchNorm fails."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.report.results import Run, join
from experiments.statistics.interaction import interaction
from experiments.statistics.paired import t_interval
from experiments.studies import ledger
from experiments.studies.answer.batch import RATES as BATCHES
from experiments.studies.answer.conditions import FULL, SKEWS, contenders, everyone
from experiments.studies.answer.hypotheses import Scores
from experiments.studies.answer.mechanism import RUNNING
from experiments.studies.answer.rows import which
from experiments.studies.answer.tables.words import NAMES, plain, points

FIRST = "nf"
"""Who is first at batches of one, and with whom others are compared."""
KINDS = {RUNNING: "running statistics", 1: "each image's own"}
"""Of statistics, by their names in rows."""


def skew(runs: Mapping[str, Scores]) -> Iterator[str]:
    """Yield accuracy on even and on skewed clients, and what skew costs, on two scales.

    Differences from NF are of blocks, with t intervals of 95 %: of accuracy and of what is lost in
    points, of what is kept in log odds, see `interaction`.

    Args:
        runs: even, then skewed; see `judged.at_one`.
    """
    heads = ("contender", *runs, "lost", *(f"less NF, {where}" for where in runs))
    yield f"| {' | '.join(heads)} | lost more than NF | log odds kept, less NF | blocks |"
    yield "|---|---|---|---|---|---|---|---|---|"
    even, skewed = ({name: _in_order(of[name]) for name in of} for of in runs.values())
    for name in (name for name in NAMES if name in even and name in skewed):
        lost, of_first = (even[who] - skewed[who] for who in (name, FIRST))
        cells = [f"{100 * d.mean():.1f}" for d in (even[name], skewed[name], lost)]
        apart = (even[name] - even[FIRST], skewed[name] - skewed[FIRST], lost - of_first)
        kept = interaction(skewed[name], skewed[FIRST], even[name], even[FIRST])
        told = [f"{points(d.mean())} {points(*t_interval(d))}" for d in apart]
        told.append(f"{plain(kept.mean())} {plain(*t_interval(kept))}")
        cells += [""] * len(told) if name == FIRST else told
        yield f"| {NAMES[name]} | {' | '.join(cells)} | {len(lost)} |"


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


def last_round(folder: Path) -> Iterator[str]:
    """Yield what runs came to in their last round, beside BatchNorm by each image's own statistics.

    The difference is of blocks, in points, with its t interval of 95 %; steps that were clipped are
    those of all rounds.

    Args:
        folder: has a folder of tables a block.
    """
    heads = ("in training", "on test images", "accuracy", "own statistics less this", "clipped")
    yield f"| clients | batches of | contender | loss {' | '.join(heads)} | blocks |"
    yield "|---|---|---|---|---|---|---|---|---|"
    known, cells = everyone(FULL.base.rounds), dict[tuple, list[Run]]()
    names = ("batch", "batch/others", "batch/instance", "batch/even")
    tables = [folder / name for name in names if (folder / name / ledger.RUNS).exists()]
    for run in join([], tables, folder).finished:
        size, name = run.knobs["client.batch-size"], which(run.knobs, known)
        cells.setdefault((which(run.knobs, SKEWS), size, name), []).append(run)
    own = {
        (which(row, SKEWS), row["seed"]): row["accuracy"]
        for _, row in ledger.rows(folder / "batch/statistics.csv")
        if row["statistics"] == 1
    }
    for where, size, name in itertools.product(SKEWS, BATCHES, NAMES):
        if runs := cells.get((where, size, name)):
            lines = [run.rounds[-1] for run in runs]
            keys = ("train_loss", "test_loss", "test_accuracy")
            fitted, lost, right = (np.mean([line[key] for line in lines]) for key in keys)
            d = [own[where, run.seed] - run.rounds[-1]["test_accuracy"] for run in runs]
            clipped = np.mean([run.result["clipped_share"] for run in runs if run.result])
            told = [f"{fitted:.2f}", f"{lost:.2f}", f"{100 * right:.1f}"]
            told += [
                f"{points(float(np.mean(d)))} {points(*t_interval(d))}",
                f"{100 * clipped:.0f} %",
            ]
            yield f"| {where} | {size} | {NAMES[name]} | {' | '.join(told)} | {len(runs)} |"


def _in_order(of: Mapping[int, float]) -> np.ndarray:
    return np.array([of[block] for block in sorted(of)])


def _scored(rows: Sequence[Mapping]) -> str:
    ys, losses = ([float(row[key]) for row in rows] for key in ("accuracy", "loss"))
    return f"{100 * np.mean(ys):.1f} (loss {np.mean(losses):.2f})"
