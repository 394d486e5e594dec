"""How soon runs reach a value: the round, and the images, traffic and simulated time until it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.report import tables, verdicts, words
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.results import Cell, Results, Run
from experiments.statistics.endpoints import median_time, rounds_to
from fl.config.parsing import ConfigError

_HOW = (
    "The first round after which the test {} is {} {}, of those after which it was measured. "
    "Half of the seeds are there by then; who never is counts as longer than all others. *p* is of "
    "the log rank test against {}, adjusted by Holm over the contenders of a condition. Nobody "
    "declared this, so it is exploratory."
)
_SPENT = ("images", "bytes_up", "simulated_seconds")
"""What a round costs, by the names of `rounds.jsonl`; a simulated time is there with a fleet."""


@dataclass(frozen=True)
class Reached:
    """When a run reached a value, and what it had cost by then."""

    round: int
    """The first that has it; or the last one."""
    there: bool
    """Whether it was reached."""
    spent: Mapping[str, float]
    """Until that round, by the keys of `_SPENT`."""


def reached(run: Run, target: float) -> Reached:
    """Say when a run reached a value of its primary metric.

    Args:
        run: with rounds.
        target: in the metric's own unit, an accuracy as a fraction.
    """
    key, good = f"test_{run.measure.name}", run.measure.goodness
    found = [(line["round"], line[key]) for line in run.rounds if line["round"]]
    scores = [(number, None if value is None else good(value)) for number, value in found]
    last, there = rounds_to(scores, good(target))
    lines = [line for line in run.rounds if line["round"] <= last]
    spent = {key: math.fsum(line.get(key) or 0 for line in lines) for key in _SPENT}
    return Reached(last, there, spent)


def check(results: Results, target: float | None) -> None:
    """Check that a value is one that the primary metric can have.

    Raises:
        ConfigError: it is not.
    """
    measure = results.measure
    if target is not None and ((measure.fraction and not 0 < target <= 1) or math.isnan(target)):
        raise ConfigError(
            f"target={target:g}: expected a fraction, above 0 and up to 1, such as 0.4"
            if measure.fraction
            else f"target={target:g}: expected a number"
        )


def section(results: Results, target: float | None) -> Html | None:
    """Make the section; None where no value was asked for, or no run is finished.

    Args:
        results: all runs.
        target: see `reached`.
    """
    if target is None or not results.finished:
        return None
    value, bodies = results.measure.value(target), []
    clock = any(line.get("simulated_seconds") for run in results.finished for line in run.rounds)
    for condition in results.conditions:
        cells = sorted(results.column(condition), key=lambda cell: cell.series)
        found = {cell.series: [reached(run, target) for run in cell.runs] for cell in cells}
        p = _log_rank(results, condition, found)
        rows = [
            _row(results, cell, found[cell.series], p.get(cell.series), clock) for cell in cells
        ]
        if rows:
            bodies.append(tables.part(str(condition), 6 + clock, rows))
    titles = ["reached", "round", "images", "sent by clients", *["simulated time"] * clock, "p"]
    head = [element("th", words.series_noun(results), scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in titles]
    others = (verdicts.reference(results, condition) for condition in results.conditions)
    named = " or ".join(dict.fromkeys(str(cell.series) for cell in others if cell)) or "nothing"
    reach = "at least" if results.measure.larger else "at most"
    how = _HOW.format(results.measure.title, reach, value, named)
    title = element("h2", f"How soon they reach {value}")
    return element("section", title, table([head], bodies, "reached"), element("p", prose(how)))


def _log_rank(
    results: Results, condition: Group, found: Mapping[Group, list[Reached]]
) -> dict[Group, float]:
    """Return the adjusted p values of a condition's contenders; none where SciPy is missing."""
    other = verdicts.reference(results, condition)
    if other is None or verdicts.missing():
        return {}
    from experiments.statistics.exact import log_rank
    from experiments.statistics.paired import holm

    times = {series: [(one.round, one.there) for one in runs] for series, runs in found.items()}
    rest = [series for series in times if series != other.series]
    alone = [log_rank(times[series], times[other.series]) for series in rest]
    return dict(zip(rest, holm(alone), strict=True))


def _row(
    results: Results, cell: Cell, found: list[Reached], p: float | None, clock: bool
) -> list[Html]:
    there, last = sum(one.there for one in found), max(one.round for one in found)
    rounds = median_time([(one.round, one.there) for one in found])
    costs = {key: median_time([(one.spent[key], one.there) for one in found]) for key in _SPENT}
    cells = [f"{there} of {len(found)}", f"> {last}" if rounds == math.inf else f"{rounds:g}"]
    cells += [_told(costs["images"], "{:,.0f}"), _told(costs["bytes_up"] / 1e6, "{:,.1f} MB")]
    if clock:
        cells.append(_told(costs["simulated_seconds"], "{:,.0f} s"))
    cells.append("" if p is None else f"{p:.2g}")
    name = tables.contender(cell.series, results)
    return [name, *(element("td", text, class_="number") for text in cells)]


def _told(value: float, form: str) -> str:
    return "–" if value == math.inf else form.format(value)
