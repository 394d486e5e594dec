"""Numbers that others published, beside ours: is the order the same?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.report import tables, verdicts
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.measure import Measure, Spread
from experiments.report.results import Cell, Results
from fl.config.parts.published import Published

_HOW = (
    "*Published* are the numbers of the source, with their standard deviation where it is known; "
    "*ours* are means over seeds, from the lowest to the highest. In brackets is the difference "
    "from {}, published and ours. *Order*: AS PUBLISHED if both differences are above the margin, "
    "both below it or both within, and else NOT AS PUBLISHED; without a verdict on ours it is what "
    "keeps it from saying so. What was published with one seed, or with a spread that is not "
    "known, may itself be chance."
)
_FEW = "too few seeds"


@dataclass(frozen=True)
class Beside:
    """A number that others published, and ours."""

    condition: Group
    series: Group
    theirs: float
    """In the units of our metric."""
    deviation: float | None
    theirs_over: float | None
    """Less what they published of the reference; None where nothing compares."""
    ours: Spread
    ours_over: Spread | None
    """Differences from the reference, seed by seed; more is better."""
    order: str
    """Whether both differences are alike; empty where nothing compares."""


def beside(results: Results, number: int) -> list[Beside]:
    """Put the numbers of a published table beside ours, in the order of conditions and contenders.

    Args:
        results: all runs.
        number: of the table, from 0.
    """
    scale = 100 if results.measure.fraction else 1
    theirs = {
        (cell.series, cell.condition): (mean / scale, deviation and deviation / scale)
        for cell, mean, deviation in _matched(results, Published.of(results.tables[number]))
    }
    found = []
    for condition in results.conditions:
        other = verdicts.reference(results, condition)
        known = theirs.get((other.series, condition)) if other else None
        for series in results.series:
            if (pair := theirs.get((series, condition))) is None:
                continue
            cell = results.cells[series, condition]
            over = None if known is None or cell == other else pair[0] - known[0]
            gain = cell.gain_over(other) if other and cell != other else None
            order = _order(results, cell, over) if over is not None and gain else ""
            found.append(Beside(condition, series, *pair, over, cell.outcome, gain, order))
    return found


def section(results: Results) -> Html | None:
    """Make the section of published tables; None where the study declared none, or none is run."""
    parts = []
    for number, told in enumerate(results.tables):
        rows, declared = beside(results, number), Published.of(told)
        if rows:
            parts += [
                element("h3", declared.source),
                element("p", f"There: {declared.setup}."),
                [element("p", "Here otherwise:"), element("ul", _differences(declared))]
                if declared.differences
                else None,
                _table(results, rows, f"published-{number + 1}"),
            ]
    if not parts:
        return None
    names = dict.fromkeys(str(cell.series) for cell in _references(results))
    how = element("p", prose(_HOW.format(" or ".join(names))))
    return element("section", element("h2", "Beside what was published"), how, parts)


def _differences(declared: Published) -> list[Html]:
    return [element("li", text) for text in declared.differences]


def _references(results: Results) -> Iterator[Cell]:
    for condition in results.conditions:
        if cell := verdicts.reference(results, condition):
            yield cell


def _matched(results: Results, declared: Published) -> Iterator[tuple[Cell, float, float | None]]:
    """Yield our cells that a table has numbers of."""
    for knobs, mean, deviation in declared.cells():
        for cell in results.cells.values():
            if verdicts.has(cell, knobs):
                yield cell, mean, deviation


def _order(results: Results, cell: Cell, over: float) -> str:
    """Say whether our difference from the reference is on the side of the margin that theirs is."""
    one = verdicts.judged(results, cell.condition).get(cell.series)
    if one is None or one.verdict is None:
        return _FEW
    if one.verdict == "UNDECIDED":
        return str(one.verdict)
    margin = verdicts.margin(results) or 0.0
    ours = 0 if one.verdict == "EQUIVALENT" else _side(one.mean, margin)
    same = ours == _side(results.measure.goodness(over), margin)
    return "AS PUBLISHED" if same else "NOT AS PUBLISHED"


def _side(difference: float, margin: float) -> int:
    """Return 1 above the margin, -1 below it, and 0 within, rounding errors aside."""
    return 0 if abs(difference) < margin - 1e-9 else int(math.copysign(1, difference))


def _table(results: Results, rows: list[Beside], name: str) -> Html:
    names = ("", "published", "ours", "order")
    head = [element("th", name, scope="col", class_="number") for name in names]
    bodies = []
    for condition in dict.fromkeys(row.condition for row in rows):
        lines = [
            [tables.contender(row.series, results), *_cells(row, results.measure)]
            for row in rows
            if row.condition == condition
        ]
        bodies.append(tables.part(str(condition), len(names), lines))
    return table([head], bodies, name)


def _cells(row: Beside, measure: Measure) -> list[Html]:
    return [element("td", text, class_="number") for text in written(row, measure)]


def written(row: Beside, measure: Measure) -> tuple[str, str, str]:
    """Write what was published, ours, and what the order is."""
    theirs = measure.value(row.theirs)
    if row.deviation is not None:
        theirs += f" ± {measure.value(row.deviation).removesuffix('%')}"
    if row.theirs_over is not None:
        theirs += f" ({measure.change(row.theirs_over)})"
    ours = measure.value(row.ours.mean)
    if row.ours_over and row.theirs_over is not None:
        ours += f" ({measure.change(row.ours_over.mean)})"
    ends = measure.extent(row.ours.values)
    return theirs, f"{ours}, {ends}" if ends else ours, row.order
