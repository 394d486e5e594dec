"""Which cells did not learn: those that can't be told from guessing, and what gradients did."""

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report import tables, verdicts, words
from experiments.report.drawing import panels
from experiments.report.drawing.figures import GRID, style
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.measure import Spread
from experiments.report.results import Cell, Results, Run
from experiments.report.sections import circumstances

_CAPTION = (
    "2-norm of the loss's gradient (with FedProx's pull) before clipping, on a logarithmic scale, "
    "as a mean over a client's steps. In colour the collapsed cells: the mean over seeds and "
    "clients, and a band from the lowest to the highest client; in grey those that learn. Where "
    "gradients vanish or grow without bound, the network can't learn; where they are like those of "
    "its neighbours, the run is too short."
)

_P = (
    "*Seeds*: whose own network can't be told from guessing. *p* is of McNemar's exact test that "
    "the reference loses as many, seed by seed; nobody declared it, so it is exploratory."
)


@dataclass(frozen=True)
class Fall:
    """How far a cell came: whether it is above guessing, and its training loss over its seeds."""

    cell: Cell
    before: Spread
    """Loss of the untrained network on the test images, which are as new to it as any."""
    after: Spread
    """Mean loss of the clients' images in the last round with replies, each before its step."""
    lost: int
    """Seeds whose network can't be told from guessing."""
    collapsed: bool
    """Whether the mean over its seeds can't be told from guessing."""
    p: float | None = None
    """Of McNemar's test that seeds are lost as often as in the reference; None where it is that, or
    no seed is in both."""


def falls(results: Results) -> list[Fall]:
    """Return how far every cell came, by condition and contender."""
    cells = sorted(results.cells.values(), key=lambda cell: (cell.condition, cell.series))
    images, found = circumstances.test_images(results.runs), []
    for cell in cells:
        ends = [_ends(run) for run in cell.runs]
        before, after = (Spread(tuple(one)) for one in zip(*ends, strict=True))
        lost = _lost(cell, images)
        fallen, p = (
            _guesses(cell, cell.outcome.mean, images),
            _as_often(results, cell, lost, images),
        )
        found.append(Fall(cell, before, after, sum(lost.values()), fallen, p))
    return found


def _lost(cell: Cell, images: int | None) -> dict[tuple[int, ...], bool]:
    """Say of each block of a cell whether its network can't be told from guessing."""
    return {run.block: _guesses(cell, run.outcome, images) for run in cell.runs}


def _as_often(
    results: Results, cell: Cell, lost: dict[tuple[int, ...], bool], images: int | None
) -> float | None:
    """Return the p value that a cell's blocks are lost as often as those of the reference."""
    other = verdicts.reference(results, cell.condition)
    if other is None or other is cell or verdicts.missing():
        return None
    from experiments.statistics.exact import mcnemar

    there = _lost(other, images)
    both = [block for block in lost if block in there]
    return mcnemar([lost[b] for b in both], [there[b] for b in both]) if both else None


def _guesses(cell: Cell, value: float, images: int | None) -> bool:
    """Say whether a value can't be told from guessing.

    Of an accuracy, its exact binomial interval is not above that; of other metrics, or where SciPy
    or the number of test images is missing, it is within 2 points, or 2 %, of that.
    """
    chance = cell.runs[0].chance
    if not math.isfinite(value):
        return True
    if chance is None or not images or not cell.measure.is_accuracy or verdicts.missing():
        return cell.measure.is_near(value, chance)
    from experiments.statistics.exact import collapsed

    return collapsed(value, images, chance)


def section(results: Results, plot: Html | None) -> Html:
    """Make the section on cells that did not learn.

    Args:
        results: all runs.
        plot: `figure` as a part of the page; None where there is none.
    """
    found = falls(results)
    collapsed = [fall for fall in found if fall.collapsed]
    parts = [element("h2", "Did all of them learn?"), element("p", prose(_rule(results, found)))]
    if plot:
        about = element("figcaption", _CAPTION)
        parts.append(element("figure", element("div", plot, class_="wide"), about))
    if collapsed:
        parts += [_table(results, collapsed), element("p", prose(_P))]
    return element("section", *parts)


def figure(results: Results) -> Figure | None:
    """Draw gradient norms over rounds, a panel a condition with a collapsed cell; None without."""
    collapsed = {(f.cell.series, f.cell.condition) for f in falls(results) if f.collapsed}
    conditions = [c for c in results.conditions if any(where == c for _, where in collapsed)]
    norms = {key: _norms(cell) for key, cell in results.cells.items()}
    if not any(norms[key] for key in collapsed):
        return None
    with panels.grid([str(c) for c in conditions], height=2.8, top=0.5) as drawn:
        for panel, condition in zip(drawn.all, conditions, strict=True):
            lines = {series: norms.get((series, condition), {}) for series in results.series}
            _panel(panel, lines, {series for series, where in collapsed if where == condition})
        for panel in drawn.leftmost:
            panel.set_ylabel("gradient norm")
        lost = {series for series, _ in collapsed}
        drawn.legend([series for series in results.series if series in lost], results.series)
    return drawn.figure


def _rule(results: Results, found: list[Fall]) -> str:
    """Say when a cell counts as collapsed, and how many have."""
    images = circumstances.test_images(results.runs)
    if images and results.measure.is_accuracy and not verdicts.missing():
        rule = f"the exact 95 % interval of its accuracy on {images:,} images is not above guessing"
    else:
        rule = f"it is within {results.measure.near} of guessing"
    number = sum(fall.collapsed for fall in found)
    told = f"{number} of {words.count(len(found), 'cell')}" if number else "None"
    return f"A cell has *collapsed* if {rule}. **{told} {'has' if number < 2 else 'have'}.**"


def _ends(run: Run) -> tuple[float, float]:
    """Return a run's loss before training and in its last round.

    Without a reply in that round, it is that of the last round with one, but no finite loss at all
    if replies were refused because the network had diverged.
    """
    before = run.rounds[0]["test_loss"]
    before = math.inf if before is None else before
    after = [line["train_loss"] for line in run.rounds if line["train_loss"] is not None]
    last = run.rounds[-1]
    diverged = any("not finite" in refusal["reason"] for refusal in last["refused"])
    if last["train_loss"] is None and diverged:
        return before, math.inf
    return before, after[-1] if after else before


def _norms(cell: Cell) -> dict[int, Spread]:
    """Return the gradient norms of a cell's clients by round."""
    found: dict[int, list[float]] = {}
    for run in cell.runs:
        for line in run.clients:
            if line.get("gradient_norm") is not None:
                found.setdefault(line["round"], []).append(line["gradient_norm"])
    return {number: Spread(tuple(values)) for number, values in sorted(found.items())}


def _panel(panel: Axes, lines: dict[Group, dict[int, Spread]], lost: set[Group]) -> None:
    """Draw a condition: lost contenders in their colours above all others in grey."""
    panel.set_yscale("log")
    for axis in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("round")
    for series, norms in lines.items():
        rounds, spreads = list(norms), list(norms.values())
        means = [_drawn(spread.mean) for spread in spreads]
        if series not in lost:
            panel.plot(rounds, means, color=GRID, lw=1.4, zorder=1)
            continue
        lows = [_drawn(spread.low) for spread in spreads]
        highs = [_drawn(spread.high) for spread in spreads]
        panels.band(panel, rounds, means, (lows, highs), style(series, list(lines)))


def _drawn(norm: float) -> float:
    """Return a norm that a logarithmic axis can show: dead networks lie on its floor."""
    return max(norm, 1e-8)


def _table(results: Results, collapsed: list[Fall]) -> Html:
    titles = ("seeds", "p", "loss, untrained", "last round", "gradient norm, first → last round")
    titles += (results.measure.title,)
    head = [element("th", words.series_noun(results), scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in titles]
    by_condition: dict[Group, list[Fall]] = {}
    for fall in collapsed:
        by_condition.setdefault(fall.cell.condition, []).append(fall)
    bodies = [
        tables.part(str(condition), len(head), [_row(fall, results) for fall in found])
        for condition, found in by_condition.items()
    ]
    return table([head], bodies, "collapsed")


def _row(fall: Fall, results: Results) -> list[Html]:
    norms = list(_norms(fall.cell).values())
    gradients = f"{norms[0].mean:.2g} → {norms[-1].mean:.2g}" if norms else "–"
    figures = (
        f"{fall.lost} of {fall.cell.outcome.n}",
        "" if fall.p is None else f"{fall.p:.2g}",
        f"{fall.before.mean:.2f}",
        f"{fall.after.mean:.2f}",
        gradients,
        results.measure.value(fall.cell.outcome.mean),
    )
    return [
        tables.contender(fall.cell.series, results),
        *(element("td", text, class_="number") for text in figures),
    ]
