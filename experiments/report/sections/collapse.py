"""Which cells did not learn: training loss that did not fall, beside what gradients did."""

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report import tables, words
from experiments.report.drawing import panels
from experiments.report.drawing.figures import GRID, style
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.measure import Spread
from experiments.report.results import Cell, Results, Run

LEAST_FALL = 0.3
"""A cell whose training loss falls by less has collapsed. The rule is ours."""

_CAPTION = (
    "2-norm of the loss's gradient (with FedProx's pull) before clipping, on a logarithmic scale, "
    "as a mean over a client's steps. In colour the collapsed cells: the mean over seeds and "
    "clients, and a band from the lowest to the highest client; in grey those that learn. Where "
    "gradients vanish or grow without bound, the network can't learn; where they are like those of "
    "its neighbours, or the network is well better than guessing, the run is too short."
)


@dataclass(frozen=True)
class Fall:
    """How far the training loss of a cell fell: means over its seeds."""

    cell: Cell
    before: Spread
    """Loss of the untrained network on the test images, which are as new to it as any."""
    after: Spread
    """Mean loss of the clients' images in the last round with replies, each before its step."""

    @property
    def share(self) -> float:
        """1 - after / before; 0 where there was no loss that could fall."""
        return 1 - self.after.mean / self.before.mean if self.before.mean else 0.0

    @property
    def collapsed(self) -> bool:
        """Whether the loss fell by less than it should."""
        return not self.share >= LEAST_FALL


def falls(results: Results) -> list[Fall]:
    """Return how far the training loss of every cell fell, by condition and contender."""
    cells = sorted(results.cells.values(), key=lambda cell: (cell.condition, cell.series))
    return [
        Fall(cell, Spread(tuple(before for before, _ in ends)), Spread(tuple(a for _, a in ends)))
        for cell in cells
        if (ends := [_ends(run) for run in cell.runs])
    ]


def section(results: Results, plot: Html | None) -> Html:
    """Make the section on cells that did not learn.

    Args:
        results: all runs.
        plot: `figure` as a part of the page; None where there is none.
    """
    found = falls(results)
    collapsed = [fall for fall in found if fall.collapsed]
    rule = (
        f"A cell counts as *collapsed* if its training loss falls by less than {LEAST_FALL:.0%}: "
        "from the loss of the untrained network to the clients' mean loss in the last round, taken "
        "on each image before its step, both as means over seeds. A client with few classes gets "
        "there by learning how frequent they are, so the more skewed the clients, the less it says "
        "to have passed. "
    )
    rule += f"**{_number(collapsed, found)}**" if collapsed else _least(found)
    parts = [element("h2", "Did all of them learn?"), element("p", prose(rule))]
    if plot:
        about = element("figcaption", _CAPTION)
        parts.append(element("figure", element("div", plot, class_="wide"), about))
    if collapsed:
        parts.append(_table(results, collapsed))
    if apart := [fall.cell for fall in found if words.guesses(fall.cell) and not fall.collapsed]:
        names = "; ".join(f"{cell.series} ({cell.condition})" for cell in apart)
        near = results.measure.near
        drift = f"Not collapsed, and yet the shared network is within {near} of guessing: "
        parts.append(element("p", f"{drift}{names}."))
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


def _number(collapsed: list[Fall], found: list[Fall]) -> str:
    return f"{len(collapsed)} of {words.count(len(found), 'cell')} have."


def _least(found: list[Fall]) -> str:
    least = min(found, key=lambda fall: fall.share)
    where = f"{least.cell.series}, {least.cell.condition}"
    return f"None has; the least fall is {words.percent(least.share, 0)} ({where})."


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
    titles = ("loss, untrained", "last round", "fall", "gradient norm, first → last round")
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
    return table([head], bodies)


def _row(fall: Fall, results: Results) -> list[Html]:
    norms = list(_norms(fall.cell).values())
    gradients = f"{norms[0].mean:.2g} → {norms[-1].mean:.2g}" if norms else "–"
    figures = (
        f"{fall.before.mean:.2f}",
        f"{fall.after.mean:.2f}",
        words.percent(fall.share, 0) if math.isfinite(fall.share) else "none",
        gradients,
        results.measure.value(fall.cell.final.mean),
    )
    return [
        tables.contender(fall.cell.series, results),
        *(element("td", text, class_="number") for text in figures),
    ]
