"""What other test images could change: each difference with seeds drawn, and with images drawn."""

from dataclasses import dataclass

import numpy as np

from experiments.report import tables, verdicts
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST
from fl.reproducibility.files import unpacked
from fl.server.contents import RIGHT

_HOW = (
    "Differences after the last round from {}, with 95 % intervals. *Other seeds*: as further "
    "seeds would give on these test images. *Other images, too*: a bootstrap over seeds and test "
    "images, as further seeds would give on other images of their kind. A verdict is about the "
    "first."
)
Ends = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """A difference from the reference, and how far it reaches."""

    cell: Cell
    mean: float
    """More is better."""
    seeds: Ends
    """Where further seeds may put it."""
    images: Ends
    """And further test images, too."""


def drawn(results: Results, condition: Group) -> list[Drawn]:
    """Return the differences of a condition whose runs say which test images were right.

    Of five seeds on that both have; none where SciPy is missing.
    """
    other = verdicts.reference(results, condition)
    if other is None or verdicts.missing():
        return []
    from experiments.statistics.images import crossed_interval
    from experiments.statistics.paired import t_interval

    found, known = [], _right(other)
    for cell in sorted(results.column(condition), key=lambda cell: cell.series):
        mine = _right(cell) if cell is not other else {}
        blocks = [block for block in mine if block in known]
        if len(blocks) < FEWEST:
            continue
        right, theirs = (np.stack([of[block] for block in blocks]) for of in (mine, known))
        d = right.mean(1) - theirs.mean(1)
        found.append(Drawn(cell, float(d.mean()), t_interval(d), crossed_interval(right, theirs)))
    return found


def section(results: Results) -> Html | None:
    """Make the section; None where no run says which test images were right."""
    bodies, others = [], []
    for condition in results.conditions:
        if rows := drawn(results, condition):
            lines = [_line(results, row) for row in rows]
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
    ends = {run.block: run.rounds[-1] for run in cell.runs}
    return {
        block: unpacked(str(line[RIGHT]), int(line["evaluated"]))
        for block, line in ends.items()
        if line.get(RIGHT)
    }


def _line(results: Results, row: Drawn) -> list[Html]:
    measure = results.measure
    ends = [f"{measure.change(a)} to {measure.change(b)}" for a, b in (row.seeds, row.images)]
    cells = [measure.change(row.mean), *ends]
    title = tables.contender(row.cell.series, results)
    return [title, *(element("td", text, class_="number") for text in cells)]
