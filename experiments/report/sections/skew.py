"""What skew of the clients does to the metric, where a study has three partitions or more."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.drawing import panels
from experiments.report.drawing.figures import MUTED, style
from experiments.report.labels import Group
from experiments.report.results import Results


def figure(results: Results) -> Figure | None:
    """Draw the metric at the end against the partition, even to skewed; None with fewer than three.

    A panel is a ladder of conditions that differ in the partition alone, a line a contender's mean,
    a bar reaches from its lowest to its highest seed.
    """
    ladders = results.ladders()
    if not ladders:
        return None
    titles = [_title(ladder[0]) for ladder in ladders]
    with panels.grid(titles, height=3.6, top=0.6, most=2, sharex=False) as drawn:
        for panel, ladder in zip(drawn.all, ladders, strict=True):
            _ladder(panel, results, ladder)
        panels.from_zero(drawn.all if results.measure.fraction else [])
        for panel in drawn.leftmost:
            panel.yaxis.set_major_formatter(results.measure.ticks())
            panel.set_ylabel(f"test {results.measure.title} over the last rounds")
        drawn.legend(results.series, results.series)
    return drawn.figure


def _ladder(panel: Axes, results: Results, ladder: list[Group]) -> None:
    """Draw all contenders along one ladder, side by side so that no bar hides another."""
    width = 0.36 / max(1, len(results.series) - 1)
    for number, series in enumerate(results.series):
        shift = (number - (len(results.series) - 1) / 2) * width
        found = [
            (place + shift, results.cells[series, condition].late)
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
    panel.set_xticks(range(len(ladder)), [_step(condition) for condition in ladder])


def _title(condition: Group) -> str:
    """Name what the conditions of a ladder have in common."""
    rest = tuple(s for s in condition.settings if s.aspect != "partition")
    return str(Group(rest)) or "all"


def _step(condition: Group) -> str:
    """Name a condition's partition, in as little room as it takes."""
    text = next(s.text for s in condition.settings if s.aspect == "partition")
    return text.rpartition("Dirichlet ")[2] or text
