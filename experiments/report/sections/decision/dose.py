"""Dose and response: what an ordered factor does to the metric, from three steps on."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.drawing import panels
from experiments.report.drawing.figures import MUTED, style
from experiments.report.labels import Group
from experiments.report.results import Results
from experiments.report.sections.decision import factors


def figure(results: Results) -> Figure | None:
    """Draw what is compared against the skew, or another factor; None with fewer than three steps.

    A panel is a ladder of conditions that differ in one ordered factor alone, a line a contender's
    mean, a bar reaches from its lowest to its highest seed.
    """
    ladders = factors.ladders(results)
    if not ladders:
        return None
    titles = [factors.title(factors.without(steps[0], aspect)) for aspect, steps in ladders]
    with panels.grid(titles, height=3.2, top=0.6, most=2, sharex=False) as drawn:
        for panel, (aspect, steps) in zip(drawn.all, ladders, strict=True):
            _ladder(panel, results, aspect, steps)
        panels.from_zero(drawn.all if results.measure.fraction else [])
        for panel in drawn.leftmost:
            panel.yaxis.set_major_formatter(results.measure.ticks())
            panel.set_ylabel(f"test {results.measure.title} {results.when}")
        drawn.legend(results.series, results.series)
    return drawn.figure


def _ladder(panel: Axes, results: Results, aspect: str, ladder: list[Group]) -> None:
    """Draw all contenders along one ladder, side by side so that no bar hides another."""
    width = 0.36 / max(1, len(results.series) - 1)
    for number, series in enumerate(results.series):
        shift = (number - (len(results.series) - 1) / 2) * width
        found = [
            (place + shift, results.cells[series, condition].outcome)
            for place, condition in enumerate(ladder)
            if (series, condition) in results.cells
        ]
        color, marker = style(series, results.series)
        panel.plot(
            [x for x, _ in found], [spread.mean for _, spread in found],
            color=color, marker=marker, ms=5.5, lw=1.5, mec="none",
        )  # fmt: skip
        for x, spread in found:
            panel.plot([x, x], [spread.low, spread.high], color=color, lw=1.1, alpha=0.55)
    if (chance := results.column(ladder[0])[0].runs[0].chance) is not None:
        panel.axhline(chance, color=MUTED, lw=1, ls="--")
    panel.set_xticks(range(len(ladder)), [factors.step(c, aspect) for c in ladder])
