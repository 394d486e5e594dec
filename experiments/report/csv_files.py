"""The numbers as CSV: a row a run, a row a run and round, a row a cell; the first are a ledger."""

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import fmean

from experiments.report.labels import Group
from experiments.report.results import Cell, Results, Run
from experiments.report.sections import held_out
from experiments.studies import ledger
from fl.reproducibility.files import SEAL
from fl.server.contents import RIGHT, RUN

Row = Mapping[str, object]

_WITHOUT = ("rounds", RUN, SEAL, "covers", "client_scores")
"""What `result.json` says of its file, or another column has."""


def runs(results: Results) -> str:
    """Return a row a run: how far it is, all that its result says, and all of its knobs."""
    return as_csv(
        {
            **_run(run),
            "finished": ledger.cell(run.result is not None),
            "rounds_done": run.rounds_done,
            **_late(run),
            **{k: ledger.cell(v) for k, v in (run.result or {}).items() if k not in _WITHOUT},
            **ledger.of_knobs(run.knobs, _engine(run)),
            **ledger.of_header(run.header, results.studies[run.name]),
        }
        for run in results.runs
    )


def _late(run: Run) -> Row:
    """Return what a finished run is compared by, where no other endpoint is declared."""
    name = f"{ledger.LATE}{run.measure.name}"
    return {name: ledger.cell(run.late if run.result else None)}


def _engine(run: Run) -> object:
    """Return the engine that was taken; that of the knobs where nothing else is written down."""
    taken = run.header.get("engine")
    return taken.get("engine") if isinstance(taken, dict) else run.knobs.get("engine")


def rounds(results: Results) -> str:
    """Return a row a run and round, also of unfinished runs; `refused` is the number of replies.

    Which test examples were right is told of the last round alone: it is a bit for each.
    """
    rows = [{**_run(run), **ledger.of_round(line)} for run in results.runs for line in run.rounds]
    for row, following in pairwise(rows):
        if row["run"] == following["run"]:
            row.pop(RIGHT, None)
    return as_csv(rows)


def clients(results: Results) -> str:
    """Return a row a client and round; what a report draws of single clients comes from it."""
    return as_csv(
        {**_run(run), **{key: ledger.cell(value) for key, value in line.items()}}
        for run in results.runs
        for line in run.clients
    )


def summary(results: Results) -> str:
    """Return a row a cell: statistics over the seeds of its finished runs, and sums."""
    return as_csv(_summary(cell) for _, cell in sorted(results.cells.items()))


def _summary(cell: Cell) -> Row:
    row: dict[str, object] = {**_whose(cell.series, cell.condition), "seeds": cell.final.n}
    metric = cell.measure.name
    for name, spread in (("late", cell.late), ("final", cell.final), ("best", cell.best)):
        row |= {
            f"{name}_{metric}_mean": spread.mean,
            f"{name}_{metric}_min": spread.low,
            f"{name}_{metric}_max": spread.high,
            f"{name}_{metric}_sd": spread.sd,
        }
    row |= _held_out(cell)
    row["best_rounds"] = " ".join(str(number) for number in cell.best_rounds)
    row["chance"] = cell.runs[0].chance
    totals = (
        "train_seconds",
        "eval_seconds",
        "bytes_up",
        "bytes_down",
        "refused",
        "single_value_steps",
    )
    return (
        row
        | {f"{key}_sum": cell.total(key) for key in totals}
        | {"images_per_second": cell.images_per_second}
    )


def _held_out(cell: Cell) -> Row:
    """Return means over the seeds that have held-out images; empty where none has."""
    found = [scores for run in cell.runs if (scores := held_out.scores(run))]
    return {
        f"held_out_{name}_mean": fmean(getattr(one, name) for one in found) if found else None
        for name in ("shared", "own", "gain", "lowest_tenth", "median")
    }


def _run(run: Run) -> Row:
    """Return the columns that say whose a row of a run is."""
    folder = {"folder": run.folder} if run.folder else {}
    return {**_whose(run.series, run.condition), "seed": run.seed, **folder, "run": run.name}


def _whose(series: Group, condition: Group) -> Row:
    return {"series": str(series), "condition": str(condition)}


def as_csv(rows: Iterable[Row]) -> str:
    """Write rows under the union of their keys; what a row lacks stays empty."""
    listed = list(rows)
    keys = list(dict.fromkeys(key for row in listed for key in row))
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return sheet.getvalue()
