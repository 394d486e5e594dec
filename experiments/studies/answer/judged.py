"""Which blocks are judged: those of B2's last look, and those of B4 once all of them are there."""

from collections.abc import Mapping
from pathlib import Path

from experiments.report.results import Run, join
from experiments.studies import ledger
from experiments.studies.answer.batch import RATES as BATCHES
from experiments.studies.answer.batch import SEEDS
from experiments.studies.answer.batch import compared as in_batch
from experiments.studies.answer.batch import even as even_with_one
from experiments.studies.answer.batch import instance as instance_with_one
from experiments.studies.answer.batch import others as others_with_one
from experiments.studies.answer.conditions import FULL, SKEWS
from experiments.studies.answer.hypotheses import LOOKS
from experiments.studies.answer.primary import RATES
from experiments.studies.answer.primary import compared as in_primary
from experiments.studies.answer.rows import Name, ended, scores, which

Cells = dict[str, dict[int, float]]
"""Contender -> block -> endpoint."""


def at_the_last_look(folder: Path) -> dict[str, Cells]:
    """Return endpoints of block B2 by skew, of the blocks of its last look.

    Before its first look there are none.

    Args:
        folder: has a folder of tables a block.
    """
    cells = _whole(folder / "primary", in_primary(FULL.base.rounds))
    blocks = len(next(iter(cells.values()), ()))
    seen = max((look for look in LOOKS if look <= blocks), default=0)
    return {
        skew: {name: dict(list(cells[name, skew].items())[:seen]) for name in RATES}
        for skew in (SKEWS if seen else ())
    }


def runs_of_look(folder: Path) -> dict[tuple[str, str], list[Run]]:
    """Return the runs of that look by contender and skew, in the order of blocks."""
    rows, found = in_primary(FULL.base.rounds), dict[tuple[str, str], list[Run]]()
    blocks = {b for of in at_the_last_look(folder).values() for ys in of.values() for b in ys}
    for run in sorted(join([], [folder / "primary"], folder).finished, key=lambda run: run.seed):
        if run.seed in blocks and (key := which(run.knobs, rows)):
            found.setdefault(key, []).append(run)
    return found


def by_batch(folder: Path) -> dict[int, Cells]:
    """Return endpoints of block B4 by batch size. Before all of its blocks are there are none."""
    cells = _whole(folder / "batch", in_batch(FULL.base.rounds))
    if len(next(iter(cells.values()), ())) < len(SEEDS):
        return {}
    return {
        size: {name: of for (batch, name), of in cells.items() if batch == size} for size in BATCHES
    }


def with_one(folder: Path) -> Cells:
    """Return endpoints at batches of one by contender, of B4 and of what was asked for after it.

    They are there once all of both are, and instance normalization as far as it has run.
    """
    of_size = by_batch(folder)
    others = _whole(folder / "batch/others", others_with_one(FULL.base.rounds))
    if not of_size or len(next(iter(others.values()), ())) < len(SEEDS):
        return {}
    return {
        **of_size[1],
        **others,
        **_whole(folder / "batch/instance", instance_with_one(FULL.base.rounds)),
    }


def at_one(folder: Path) -> dict[str, Cells]:
    """Return endpoints at batches of one by skew, of who has run on even clients, too.

    There are none before `with_one` has any, nor of fewer than two whole blocks on even clients.
    """
    skewed = with_one(folder)
    even = _whole(folder / "batch/even", even_with_one(FULL.base.rounds))
    blocks = next(iter(even.values()), {})
    if not skewed or len(blocks) < 2:
        return {}
    return {
        "even": even,
        "α 1": {name: {block: skewed[name][block] for block in blocks} for name in even},
    }


def _whole(tables: Path, rows: Mapping[Name, Mapping]) -> dict[Name, dict[int, float]]:
    """Return endpoints by cell, of blocks that have a run in each cell, in their order."""
    cells = scores(ended(tables), rows) if (tables / ledger.RUNS).exists() else {}
    if len(cells) < len(rows):
        return {}
    blocks = sorted(set.intersection(*(set(of) for of in cells.values())))
    return {name: {block: of[block] for block in blocks} for name, of in cells.items()}
