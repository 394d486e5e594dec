"""Figures of many panels: a grid of them, in the report's looks, and a legend above."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import fill
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.drawing.figures import RC, handle
from experiments.report.labels import Group

_WIDEST = 108
"""Letters of a title that go across a figure."""


@dataclass(frozen=True)
class Panels:
    """A figure and its panels, row by row."""

    figure: Figure
    all: list[Axes]
    leftmost: list[Axes]

    def legend(self, named: Sequence[Group], series: Sequence[Group]) -> None:
        """Name some of the series above the panels, in the colours that they have among all."""
        handles = [handle(one, series) for one in named]
        self.figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(handles)))


@contextmanager
def grid(
    titles: Sequence[str],
    height: float,
    top: float = 0.0,
    most: int = 3,
    sharex: bool = True,
    sharey: bool | Literal["col"] = True,
) -> Iterator[Panels]:
    """Give a titled panel each, and let them be drawn in the report's looks.

    Args:
        titles: of the panels.
        height: of a row of panels, in inches.
        top: inches above them, for a legend.
        most: panels in a row.
        sharex: whether they share the level axis.
        sharey: whether they share the upright axis, or those of a column do.
    """
    columns = min(most, len(titles))
    rows = -(-len(titles) // columns)
    with mpl.rc_context(RC):
        size = (9.6 if columns > 1 else 6.4, top + height * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
        panels = list(axes.flat)
        for empty in panels[len(titles) :]:
            empty.remove()
        for panel, title in zip(panels, titles, strict=False):
            panel.set_title(fill(title, _WIDEST // columns))
            panel.tick_params(labelbottom=True)
        yield Panels(figure, panels[: len(titles)], list(axes[:, 0]))


def band(
    panel: Axes,
    at: Sequence[float],
    line: Sequence[float],
    ends: tuple[Sequence[float], Sequence[float]],
    look: tuple[str, str],
) -> None:
    """Draw a line, and a band around it.

    Args:
        panel: where.
        at: places on the level axis.
        line: the line's heights there.
        ends: the band's lower and upper heights there.
        look: colour and marker.
    """
    color, marker = look
    panel.fill_between(at, *ends, color=color, alpha=0.11, lw=0)
    every = max(1, len(at) // 8)
    panel.plot(at, line, color=color, marker=marker, markevery=every, ms=5, lw=1.7, mec="none")


def from_zero(drawn: Sequence[Axes]) -> None:
    """Let upright axes begin at 0, once all is drawn: later lines would not be fitted in."""
    for panel in drawn:
        panel.set_ylim(bottom=0)
