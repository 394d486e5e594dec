"""Response curves: how a score depends on a knob that was tuned, a line a rung."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.report.drawing import panels
from experiments.report.measure import Measure

_RUNGS = ("#9ecae1", "#4f9bcb", "#1d5f9e", "#08306b")
"""Colours of rungs, from the first on; the last ones have the last colour."""
_LOG = 8.0
"""Ratio of the largest value to the smallest from which an axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A candidate at a rung."""

    at: object
    """Its value of the knob along the level axis."""
    panel: str
    rung: int
    scores: tuple[float, ...]
    """One a seed."""
    winner: bool


def figure(points: Sequence[Point], knob: str, measure: Measure, joined: bool) -> Figure:
    """Draw the mean score over seeds by a knob's value, from the smallest to the largest as a band.

    Args:
        points: all candidates at all rungs that have a score; at least one.
        knob: along the level axis: its numbers, or its values one beside another.
        measure: what is scored.
        joined: whether the candidates of a panel and a rung are on one line.
    """
    titles = list(dict.fromkeys(point.panel for point in points))
    rungs = sorted({point.rung for point in points})
    color = {rung: _RUNGS[min(n, len(_RUNGS) - 1)] for n, rung in enumerate(rungs)}
    values = {point.at for point in points}
    places = _places(values)
    with panels.grid(titles, 2.7, top=0.4) as drawn:
        for panel, title in zip(drawn.all, titles, strict=True):
            _level_axis(panel, knob, values)
            for rung in rungs:
                here = [p for p in points if (p.panel, p.rung) == (title, rung)]
                _line(panel, sorted(here, key=lambda p: places[p.at]), places, color[rung], joined)
            panel.yaxis.set_major_formatter(measure.ticks())
        for panel in drawn.leftmost:
            panel.set_ylabel(measure.heading)
        lines = [
            Line2D([], [], color=color[rung], marker="o", ms=4.5, lw=1.7, label=f"round {rung}")
            for rung in rungs
        ]
        lines.append(Line2D([], [], color="#d55e00", marker="*", ms=11, lw=0, label="winner"))
        drawn.figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    return drawn.figure


def _places(values: set[object]) -> Mapping[object, float]:
    """Return where each value is: numbers are where they are, others one beside another."""
    if all(isinstance(value, float) for value in values):
        return {value: float(value) for value in values}  # pyrefly: ignore
    return {value: float(n) for n, value in enumerate(sorted(values, key=str))}


def _level_axis(panel: Axes, knob: str, values: set[object]) -> None:
    numbers = [value for value in values if isinstance(value, float)]
    panel.set_xlabel(knob)
    if len(numbers) < len(values):
        names = sorted(values, key=str)
        panel.set_xticks(range(len(names)), [str(name) for name in names])
        return
    if min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG:
        panel.set_xscale("log")
    if len(numbers) <= 12:
        ticks = sorted(numbers)[:: 2 if len(numbers) > 7 else 1]
        panel.set_xticks(ticks, [f"{value:g}" for value in ticks])
        panel.minorticks_off()


def _line(
    panel: Axes,
    points: Sequence[Point],
    places: Mapping[object, float],
    color: str,
    joined: bool,
) -> None:
    at = [places[point.at] for point in points]
    means = [sum(point.scores) / len(point.scores) for point in points]
    low, high = [min(p.scores) for p in points], [max(p.scores) for p in points]
    if joined and len(points) > 1:
        panel.fill_between(at, low, high, color=color, alpha=0.18, lw=0)
    else:
        panel.vlines(at, low, high, color=color, lw=0.9)
    panel.plot(at, means, color=color, marker="o", ms=4.5, lw=1.7 if joined else 0, mec="none")
    for point, x, y in zip(points, at, means, strict=True):
        if point.winner:
            panel.plot([x], [y], color="#d55e00", marker="*", ms=11, mec="white", mew=0.6, zorder=5)
