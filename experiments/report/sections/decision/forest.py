"""The forest plot: each contender's difference from the reference, its interval and verdict."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import verdicts
from experiments.report.drawing import panels
from experiments.report.drawing.figures import GRID, INK, MUTED, style
from experiments.report.results import Cell, Results


def figure(results: Results) -> Figure | None:
    """Draw a panel a condition and a row a contender; None where nothing compares.

    A dot is the mean of the differences seed by seed, filled where the study declared it. Its bar
    is the 95 % interval; with fewer than five seeds there are the seeds instead. The tinted band
    is ± the margin.
    """
    found = {
        condition: (other, cells)
        for condition in results.conditions
        if (other := verdicts.reference(results, condition))
        and (
            cells := [c for c in results.column(condition) if c is not other and c.gain_over(other)]
        )
    }
    if not found:
        return None
    names = sorted({cell.series for _, cells in found.values() for cell in cells})
    ends = [end for other, cells in found.values() for cell in cells for end in _ends(cell, other)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    width = (high - low) or 1.0
    with panels.grid([str(c) for c in found], 0.75 + 0.3 * len(names), most=2) as drawn:
        for panel, (other, cells) in zip(drawn.all, found.values(), strict=True):
            _panel(panel, results)
            for cell in cells:
                _row(panel, results, names.index(cell.series), cell, other)
            panel.set_xlabel(f"difference from {other.series}{_unit(results)}")
        first = drawn.all[0]
        first.set_yticks(range(len(names)), [str(name) for name in names])
        first.set_ylim(len(names) - 0.5, -0.5)
        first.set_xlim(low - 0.05 * width, high + 0.62 * width)
        first.xaxis.set_major_formatter(lambda value, _: results.measure.change(value))
    return drawn.figure


def _unit(results: Results) -> str:
    return ", points" if results.measure.fraction else ""


def _ends(cell: Cell, other: Cell) -> tuple[float, float]:
    """Return the interval that is drawn of a difference, or its lowest and highest seed."""
    gain = cell.gain_over(other)
    if gain is None:
        return 0.0, 0.0
    return verdicts.interval(gain.values) or (gain.low, gain.high)


def _panel(panel: Axes, results: Results) -> None:
    """Draw what stands behind the differences: a line at none, and the margin."""
    if size := verdicts.margin(results):
        panel.axvspan(-size, size, color=GRID, alpha=0.55, lw=0)
    panel.axvline(0, color=MUTED, lw=1)
    panel.grid(visible=False)
    panel.tick_params(left=False)


def _row(panel: Axes, results: Results, row: int, cell: Cell, other: Cell) -> None:
    """Draw one difference, and write its verdict beside it."""
    gain = cell.gain_over(other)
    if gain is None:
        return
    color, _ = style(cell.series, results.series)
    ends = verdicts.interval(gain.values)
    if ends:
        panel.plot(ends, [row, row], color=color, lw=2)
    else:
        panel.plot(gain.values, [row] * gain.n, "o", color=color, ms=4, alpha=0.6, mec="none")
    filled = verdicts.confirmatory(results, cell)
    face = color if filled else "none"
    panel.plot(gain.mean, row, "o" if ends else "|", ms=6 if ends else 10, mfc=face, mec=color)
    one = verdicts.judged(results, cell.condition).get(cell.series)
    text = f"{one}, n = {one.n}" if one and one.verdict else f"n = {gain.n}"
    panel.annotate(
        text, (1, row), xycoords=("axes fraction", "data"), ha="right", va="center", size=6.5,
        color=INK,
    )  # fmt: skip
