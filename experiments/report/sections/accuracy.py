"""The two figures of every report: the accuracy, or another metric, over rounds and at the end."""

import math
import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report.drawing import panels
from experiments.report.drawing.figures import INK, MUTED, style
from experiments.report.labels import Group
from experiments.report.results import Results, Run


def curves(results: Results) -> Figure:
    """Draw the metric over rounds: a panel a condition, a line a contender, a band over seeds.

    Where no run is finished, unfinished ones are drawn as far as they are.
    """
    shown = results.finished or results.runs
    conditions = [c for c in results.conditions if any(run.condition == c for run in shown)]
    with panels.grid([str(c) for c in conditions], height=3.1, top=0.5) as drawn:
        for panel, condition in zip(drawn.all, conditions, strict=True):
            runs = [run for run in shown if run.condition == condition]
            for series in results.series:
                look = style(series, results.series)
                _band(panel, [run for run in runs if run.series == series], look)
            _chance_line(panel, runs[0])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("round")
        panels.from_zero(drawn.all if results.measure.fraction else [])
        for panel in drawn.leftmost:
            panel.yaxis.set_major_formatter(results.measure.ticks())
            panel.set_ylabel(f"test {results.measure.title}")
        drawn.legend(results.series, results.series)
    return drawn.figure


def dots(results: Results) -> Figure:
    """Draw what is compared: a panel a condition, a row a contender, a dot a seed.

    A thin line leads from the mean under the condition's plainer counterpart (open circle) to the
    mean here (upright bar).
    """
    conditions = [c for c in results.conditions if results.column(c)]
    plainer = {after: before for before, after in reversed(results.changes())}
    height = 0.8 + 0.36 * len(results.series)
    with panels.grid([str(c) for c in conditions], height) as drawn:
        for panel, condition in zip(drawn.all, conditions, strict=True):
            for row, series in enumerate(results.series):
                _row(panel, row, results, (series, condition), plainer.get(condition))
            if (chance := results.column(condition)[0].runs[0].chance) is not None:
                panel.axvline(chance, color=MUTED, lw=1, ls="--")
            panel.grid(axis="x", visible=True)
            panel.tick_params(left=False)
            panel.xaxis.set_major_formatter(results.measure.ticks())
            panel.set_xlabel(f"test {results.measure.title} {results.when}")
        first = drawn.all[0]
        first.set_yticks(range(len(results.series)), [str(series) for series in results.series])
        first.set_ylim(len(results.series) - 0.5, -0.5)
        ends = [cell.outcome for cell in results.cells.values()]
        low, high = min(0.0, *(end.low for end in ends)), max(end.high for end in ends)
        beside = 0.22 * max(high - low, abs(high)) or 0.22  # all may be 0
        first.set_xlim(1.05 * low, high + beside)
    return drawn.figure


def _band(panel: Axes, runs: list[Run], look: tuple[str, str]) -> None:
    """Draw the mean of some runs over the rounds that all have, and from least to most.

    Rounds of which nobody evaluated the network on all test images are left out.
    """
    if not runs:
        return
    key = f"test_{runs[0].measure.name}"
    lines = list(zip(*(run.rounds for run in runs), strict=False))
    lines = [line for line in lines if any(run[key] is not None for run in line)]
    rounds = [line[0]["round"] for line in lines]
    found = [[math.nan if run[key] is None else run[key] for run in line] for line in lines]
    means = [statistics.fmean(values) for values in found]
    lows, highs = [min(v) for v in found], [max(v) for v in found]
    panels.band(panel, rounds, means, (lows, highs), look)


def _row(
    panel: Axes, row: int, results: Results, key: tuple[Group, Group], plainer: Group | None
) -> None:
    cell = results.cells.get(key)
    if cell is None:
        return
    color, _ = style(cell.series, results.series)
    before = results.cells.get((cell.series, plainer)) if plainer else None
    if before:
        panel.plot(
            [before.outcome.mean, cell.outcome.mean], [row, row], color=color, lw=1.1, alpha=0.55
        )
        panel.plot(before.outcome.mean, row, "o", mfc="none", mec=color, ms=6, alpha=0.8)
    panel.plot(cell.outcome.mean, row, "|", color=INK, ms=13, mew=1.6)
    panel.plot(
        cell.outcome.values, [row] * cell.outcome.n, "o", color=color, ms=6, mec="none", alpha=0.85
    )
    panel.annotate(
        cell.measure.value(cell.outcome.mean),
        (1, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        size=7.5,
    )


def _chance_line(panel: Axes, run: Run) -> None:
    """Draw what guessing gives; its name stands beside the panel, where no curve is."""
    if (chance := run.chance) is None:
        return
    panel.axhline(chance, color=MUTED, lw=1, ls="--")
    panel.annotate(
        f"guessing\n{run.measure.value(chance, 0)}",
        (1, chance),
        (3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",
        va="center",
        color=MUTED,
        size=7.5,
    )
