"""What other test images could change: each difference with seeds drawn, and with images drawn."""

from typing import TYPE_CHECKING

import numpy as np

from experiments.report import tables, verdicts
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST

if TYPE_CHECKING:
    from experiments.statistics.images import Apart

_HOW = (
    "Differences after the last round from {}, with 95 % intervals. *Other seeds*: as further "
    "seeds would give on these test images. *Other images, too*: a bootstrap over seeds and test "
    "images, as further seeds would give on other images of their kind. A verdict is about the "
    "first."
)


def drawn(results: Results, condition: Group) -> list[tuple[Cell, "Apart"]]:
    """Return the differences of a condition whose runs say which test images were right.

    Of five seeds on that both have; none where SciPy is missing.
    """
    other = verdicts.reference(results, condition)
    if other is None or verdicts.missing():
        return []
    from experiments.statistics.images import apart

    found, known = [], _right(other)
    for cell in sorted(results.column(condition), key=lambda cell: cell.series):
        mine = _right(cell) if cell is not other else {}
        blocks = [block for block in mine if block in known]
        if len(blocks) < FEWEST:
            continue
        right, theirs = (np.stack([of[block] for block in blocks]) for of in (mine, known))
        found.append((cell, apart(right, theirs)))
    return found


def section(results: Results) -> Html | None:
    """Make the section; None where no run says which test images were right."""
    bodies, others = [], []
    for condition in results.conditions:
        if rows := drawn(results, condition):
            lines = [_line(results, *row) for row in rows]
            bodies.append(tables.part(str(condition), 4, lines))
            others.append(str(verdicts.reference(results, condition).series))  # pyrefly: ignore
    if not bodies:
        return None
    names = ("", "difference", "other seeds", "other images, too")
    head = [element("th", name, scope="col", class_="number") for name in names]
    how = prose(_HOW.format(" or ".join(dict.fromkeys(others))))
    title = element("h2", "On other test images")
    return element("section", title, table([head], bodies, "test-images"), element("p", how))


def _right(cell: Cell) -> dict[tuple[int, ...], np.ndarray]:
    """Return which test images were right after the last round, by block."""
    told = {run.block: run.right for run in cell.runs}
    return {block: right for block, right in told.items() if right is not None}


def _line(results: Results, cell: Cell, difference: "Apart") -> list[Html]:
    measure = results.measure
    both = (difference.blocks, difference.images)
    ends = [f"{measure.change(a)} to {measure.change(b)}" for a, b in both]
    cells = [measure.change(difference.mean), *ends]
    title = tables.contender(cell.series, results)
    return [title, *(element("td", text, class_="number") for text in cells)]
