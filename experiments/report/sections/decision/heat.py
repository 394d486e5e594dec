"""The heat map: what every contender reaches under every condition, and its verdict."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.report import verdicts
from experiments.report.drawing import panels
from experiments.report.labels import Group
from experiments.report.results import Results
from experiments.report.sections.decision import factors

MARKS = {"BETTER": "▲", "BETTER-SMALL": "△", "EQUIVALENT": "=", "WORSE": "▼", "UNDECIDED": "?"}
"""A verdict as a letter behind a number."""
_COLOURS = mpl.colormaps["viridis"]


def figure(results: Results) -> Figure | None:
    """Draw a panel for each combination of the other factors, a row a contender.

    The skew (or the factor with most values) goes across. None with one condition or contender.
    """
    aspect = factors.across(results)
    if aspect is None or len(results.series) < 2:
        return None
    drawn_in = factors.panels(results, aspect)
    shown = [cell.outcome.mean for cell in results.cells.values()]
    shown = [value for value in shown if math.isfinite(value)]
    if not shown:
        return None
    titles = [factors.title(rest) for rest in drawn_in]
    height = 0.75 + 0.34 * len(results.series)
    scale = Normalize(min(shown), max(shown) if max(shown) > min(shown) else min(shown) + 1)
    with panels.grid(titles, height, most=3, sharex=False) as drawn:
        for panel, conditions in zip(drawn.all, drawn_in.values(), strict=True):
            _panel(panel, results, conditions, scale)
            steps = [factors.step(c, aspect) for c in conditions]
            panel.set_xticks(range(len(steps)), steps)
        names = [str(series) for series in results.series]
        drawn.all[0].set_yticks(range(len(names)), names)
        drawn.all[0].set_ylim(len(names) - 0.5, -0.5)
    return drawn.figure


def _panel(panel: Axes, results: Results, conditions: list[Group], scale: Normalize) -> None:
    """Draw the cells of some conditions, each with its number and the letter of its verdict."""
    values = np.full((len(results.series), len(conditions)), math.nan)
    for column, condition in enumerate(conditions):
        judged = verdicts.judged(results, condition)
        for row, series in enumerate(results.series):
            if (cell := results.cells.get((series, condition))) is None:
                continue
            mean = values[row, column] = cell.outcome.mean
            one = judged.get(series)
            mark = MARKS.get(str(one.verdict), "") if one else ""
            text = cell.measure.value(mean).rstrip("%")
            ink = "#ffffff" if scale(mean) < 0.6 else "#000000"
            panel.text(column, row, f"{text} {mark}".strip(), ha="center", va="center", color=ink)
    edges = [np.arange(size + 1) - 0.5 for size in reversed(values.shape)]
    panel.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=_COLOURS, norm=scale, ec="none")
    panel.grid(visible=False)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
