"""What blocks left behind: their runs with their endpoints, and what tuning found."""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiments.statistics.endpoints import late_mean
from experiments.studies import ledger
from experiments.studies.answer.conditions import FULL, SKEWS, contenders, everyone
from experiments.studies.answer.tuning import (
    tuning,
    tuning_batch,
    tuning_batch_others,
    tuning_between,
    tuning_cause,
)
from fl.config.parsing import Value

Name = TypeVar("Name", bound=Hashable)
Draw = tuple[Value, ...]
DRAWN = ("seed.deal", "seed.init", "seed.order")
"""The seeds that a `Draw` has."""
TUNING = {
    "primary.csv": tuning,
    "between.csv": tuning_between,
    "cause.csv": tuning_cause,
    "batch.csv": tuning_batch,
    "batch-others.csv": tuning_batch_others,
}
"""Tables in the folder `tuning`, and the studies whose contenders they are about."""
TUNED_AT_FOUR = ("primary.csv", "between.csv", "cause.csv")
"""Those of them that are about batches of four, as all blocks but B4 are."""


@dataclass(frozen=True)
class Ended:
    """A run that is done, and its endpoint."""

    knobs: Mapping[str, Value]
    y: float
    """Mean accuracy over the last evaluations, a fraction; on test images if not said otherwise."""


def ended(tables: Path, score: str = "test_accuracy") -> list[Ended]:
    """Return the finished runs of a folder's tables.

    Args:
        tables: the folder.
        score: a column of its rounds.

    Raises:
        ConfigError: they can't be read.
    """
    found = list[Ended]()
    for run in ledger.read(tables):
        if run.result:
            told = (line.get(score) for line in run.rounds if line["round"])
            known = [accuracy for accuracy in told if accuracy is not None]
            found.append(Ended(run.header["knobs"], late_mean(known)))
    return found


def scores(
    runs: Iterable[Ended], rows: Mapping[Name, Mapping[str, Value]]
) -> dict[Name, dict[int, float]]:
    """Return endpoints by name and block, of the runs that have the knobs of a row."""
    found: dict[Name, dict[int, float]] = {name: {} for name in rows}
    for run in runs:
        if (name := which(run.knobs, rows)) is not None:
            found[name][int(run.knobs["seed"])] = run.y
    return {name: of for name, of in found.items() if of}


def won(folder: Path, names: Iterable[str] = TUNED_AT_FOUR) -> dict[tuple[str, str], dict]:
    """Return the row of each winner of tuning, by contender and skew.

    Args:
        folder: of the blocks.
        names: of those tables that are looked at, if they are there.
    """
    best = dict[tuple[str, str], dict]()
    for path in (folder / "tuning" / name for name in names):
        tried = played(path) if path.exists() else []
        last = max((row["rung"] for row, _, _ in tried), default=0)
        for row, who, skew in tried:
            if row["rung"] == last and row["kept"] == "True":
                assert (who, skew) not in best, f"{path}: two winners of {who}, {skew}"
                best[who, skew] = row
    return best


def tried_to_the_end(folder: Path) -> dict[tuple[str, str], dict[float, float]]:
    """Return accuracy on validation images by rate, of each contender and skew that was tried so.

    Args:
        folder: of the blocks.
    """
    return _late(folder / "tuning/late", everyone(FULL.base.rounds))


def _late(
    tables: Path, rows: Mapping[str, Mapping[str, Value]]
) -> dict[tuple[str, str], dict[float, float]]:
    """Return what runs to the end came to on validation images, by contender, skew and rate."""
    found = dict[tuple[str, str], dict[float, float]]()
    for run in ended(tables, "validation_accuracy"):
        if (name := which(run.knobs, rows)) and (skew := which(run.knobs, SKEWS)):
            found.setdefault((name, skew), {})[float(run.knobs["client.lr"])] = run.y
    return found


def tried_at_one(folder: Path) -> dict[tuple[str, str], dict[float, float]]:
    """Return the same of contenders at batches of one.

    At alpha 1 it is what halving left, and runs to the end of BatchNorm and of instance
    normalization; on even clients all are runs to the end.

    Args:
        folder: of the blocks.
    """
    halved = (folder / "tuning" / name for name in TUNING if name not in TUNED_AT_FOUR)
    played_out = [row for path in halved if path.exists() for row in played(path)]
    last = max((row["rung"] for row, _, _ in played_out), default=0)
    found = dict[tuple[str, str], dict[float, float]]()
    for row, name, skew in played_out:
        if row["rung"] == last:
            found.setdefault((name, skew), {})[row["client.lr"]] = row["score"]
    late = folder / "tuning/batch-late"
    for tables in (late, late / "even", late / "instance"):
        for cell, of in _late(tables, everyone(FULL.base.rounds)).items():
            found.setdefault(cell, {}).update(of)
    return found


def best_validated(folder: Path) -> dict[str, dict[str, float]]:
    """Return accuracy on validation images of contenders at their own rates, by skew and contender.

    Few were tuned at α 3, so there those of α 1 say who is best.
    """
    found: dict[str, dict[str, float]] = {skew: {} for skew in SKEWS}
    for (name, skew), of in tried_to_the_end(folder).items():
        found[skew][name] = max(of.values())
    return {**found, "α 3": found["α 1"]}


def played(tables: Path) -> list[tuple[dict, str, str]]:
    """Return the rows of one of `TUNING`'s tables, each with its contender and its skew.

    Knobs that all contenders of a table share are in no column, but in its study.
    """
    rows = everyone(FULL.base.rounds)
    flats = [one.to_flat() for one in TUNING[tables.name](FULL).experiments]
    shared = {k: v for k, v in flats[0].items() if all(flat[k] == v for flat in flats)}
    told = ({**shared, **row} for _, row in ledger.rows(tables))
    tried = ((row, which(row, rows), which(row, SKEWS)) for row in told)
    return [(row, name, skew) for row, name, skew in tried if name and skew]


def which(knobs: Mapping[str, object], rows: Mapping[Name, Mapping[str, Value]]) -> Name | None:
    """Return the row whose knobs these have; of several, the one that says most."""
    fits = [name for name, row in rows.items() if row.items() <= knobs.items()]
    return max(fits, key=lambda name: len(rows[name]), default=None)


def by_cell(runs: Sequence[Ended]) -> dict[tuple[str, str], list[Ended]]:
    """Return runs by contender and skew."""
    rows, found = contenders(FULL.base.rounds), dict[tuple[str, str], list[Ended]]()
    for run in runs:
        name, skew = which(run.knobs, rows), which(run.knobs, SKEWS)
        if name and skew:
            found.setdefault((name, skew), []).append(run)
    return found


def by_draw(runs: Iterable[Ended]) -> dict[Draw, float]:
    """Return endpoints by what was drawn."""
    return {tuple(run.knobs[key] for key in DRAWN): run.y for run in runs}


def broken(one: Mapping[tuple, float], other: Mapping[tuple, float]) -> float:
    """Return the deviation, in points, of differences of runs that share no draw."""
    crossed = itertools.product(one.items(), other.items())
    apart = [a - b for (d, a), (e, b) in crossed if all(x != y for x, y in zip(d, e, strict=True))]
    return 100 * float(np.std(apart, ddof=1))
