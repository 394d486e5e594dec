"""Figures: accuracy over rounds, accuracy at the end, and who holds which classes."""

import io
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.report.labels import Group
from experiments.report.results import Results, Run
from fl.files import write_whole

INK, MUTED, GRID, BAR = "#1f2430", "#6b7280", "#d9dce3", "#3b6ea5"
"""Colours of text, remarks, lines behind the data, and bars; the page swaps them in the dark."""

MOST_CLIENTS = 40
"""Clients that a picture of a deal shows; more would be too small to see."""

# Okabe and Ito's colours, which people with any colour vision can tell apart, plus four of Tol's.
_STYLES = {
    "BatchNorm": ("#d55e00", "o"),
    "GroupNorm": ("#e69f00", "s"),
    "LayerNorm": ("#cc79a7", "D"),
    "ReLU": ("#7f8490", "v"),
    "Swish": ("#56b4e9", "^"),
    "ZC-Swish": ("#0072b2", "P"),
    "SaluNet": ("#009e73", "X"),
}
_SPARE = (("#882255", "<"), ("#999933", ">"), ("#44aa99", "p"), ("#aa4499", "h"), ("#117733", "d"))

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are alike everywhere
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.dpi": 100,
    "svg.hashsalt": "fednf",  # ids inside of an SVG are random without it
}


def style(series: Group, all_series: Sequence[Group]) -> tuple[str, str]:
    """Return a contender's colour and marker: a recipe has the same ones in every report."""
    unknown = [group for group in all_series if str(group) not in _STYLES]
    if series in unknown:
        return _SPARE[unknown.index(series) % len(_SPARE)]
    return _STYLES[str(series)]


def handle(series: Group, all_series: Sequence[Group]) -> Line2D:
    """Return a contender's entry in a legend."""
    color, marker = style(series, all_series)
    return Line2D([], [], color=color, marker=marker, ms=5, lw=1.7, mec="none", label=str(series))


def curves(results: Results) -> Figure:
    """Draw test accuracy over rounds: a panel a condition, a line a contender, a band over seeds.

    Where no run is finished, unfinished ones are drawn as far as they are.
    """
    shown = results.finished or results.runs
    conditions = [c for c in results.conditions if any(run.condition == c for run in shown)]
    columns = min(3, len(conditions))
    rows = -(-len(conditions) // columns)
    with mpl.rc_context(RC):
        figure = Figure(
            figsize=(9.6 if columns > 1 else 6.4, 0.5 + 3.1 * rows), layout="constrained"
        )
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for panel, condition in zip(panels, conditions, strict=False):
            panel.set_title(str(condition))
            runs = [run for run in shown if run.condition == condition]
            for series in results.series:
                color, marker = style(series, results.series)
                _band(panel, [run for run in runs if run.series == series], color, marker)
            _chance_line(panel, runs[0])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.tick_params(labelbottom=True)
        for empty in panels[len(conditions) :]:
            empty.remove()
        for panel in panels[: len(conditions)]:
            panel.set_xlabel("round")
        for panel in grid[:, 0]:
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set_ylabel("test accuracy")
        handles = [handle(series, results.series) for series in results.series]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(handles)))
    return figure


def dots(results: Results) -> Figure:
    """Draw accuracy after the last round: a panel a condition, a row a contender, a dot a seed.

    A thin line leads from the mean under the condition's plainer counterpart (open circle) to the
    mean here (upright bar).
    """
    conditions = [c for c in results.conditions if results.column(c)]
    columns = min(3, len(conditions))
    rows = -(-len(conditions) // columns)
    plainer = {after: before for before, after in reversed(results.changes())}
    with mpl.rc_context(RC):
        size = (9.6 if columns > 1 else 6.4, (0.8 + 0.36 * len(results.series)) * rows)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for panel, condition in zip(panels, conditions, strict=False):
            panel.set_title(str(condition))
            for row, series in enumerate(results.series):
                _row(panel, row, results, (series, condition), plainer.get(condition))
            panel.axvline(_chance(results.column(condition)[0].runs[0]), color=MUTED, lw=1, ls="--")
            panel.grid(axis="x", visible=True)
            panel.tick_params(left=False, labelbottom=True)
            panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set_xlabel("test accuracy after the last round")
        for empty in panels[len(conditions) :]:
            empty.remove()
        panels[0].set_yticks(range(len(results.series)), [str(series) for series in results.series])
        panels[0].set_ylim(len(results.series) - 0.5, -0.5)
        panels[0].set_xlim(0, 1.22 * max(cell.final.high for cell in results.cells.values()))
    return figure


def deal(
    counts: Integer[np.ndarray, "clients classes"], classes: Sequence[str], title: str
) -> Figure:
    """Draw who holds which classes: a square's area is a number of images, a bar is a client's sum.

    Args:
        counts: how many images of each class each client has.
        classes: the names of the classes.
        title: stands above.
    """
    clients = len(counts)
    shown = np.asarray(counts)[:MOST_CLIENTS]
    with mpl.rc_context(RC):
        figure = Figure(figsize=(4.7, 1.5 + 0.17 * len(shown)), layout="constrained")
        figure.suptitle(title, fontsize=9.5, fontweight="bold", ha="left", x=0.02)
        squares, bars = figure.subplots(1, 2, sharey=True, width_ratios=(0.3 * len(classes), 1.3))
        _squares(squares, shown, classes)
        sums = shown.sum(axis=1)
        bars.barh(range(len(shown)), sums, height=0.62, color=BAR)
        for client, images in enumerate(sums):
            bars.annotate(
                f"{images:,}",
                (images, client),
                (2, 0),
                textcoords="offset points",
                va="center",
                size=6.5,
            )
        bars.set_xlim(0, max(1, sums.max()) * 1.3)
        bars.set_axis_off()
        bars.set_title("images", fontsize=7.5, fontweight="normal", pad=0)
        squares.set_ylim(len(shown) - 0.4, -0.6)
        squares.set_ylabel(
            "client" if clients == len(shown) else f"first {len(shown)} of {clients:,} clients"
        )
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same bytes every time."""
    return _bytes(figure, "svg", {"Date": None, "Creator": None}).decode()


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes every time, at 200 dots an inch."""
    return _bytes(figure, "png", {"Software": None})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and as SVG, each whole or not at all; the path has no ending."""
    write_whole(path.with_name(f"{path.name}.svg"), svg(figure))
    write_whole(path.with_name(f"{path.name}.png"), png(figure))


def _bytes(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def _band(panel: Axes, runs: list[Run], color: str, marker: str) -> None:
    """Draw the mean of some runs over the rounds that all of them have, and from least to most."""
    if not runs:
        return
    lines = list(zip(*(run.rounds for run in runs), strict=False))
    rounds = [line[0]["round"] for line in lines]
    accuracies = [[run["test_accuracy"] for run in line] for line in lines]
    means = [statistics.fmean(values) for values in accuracies]
    lows, highs = [min(v) for v in accuracies], [max(v) for v in accuracies]
    panel.fill_between(rounds, lows, highs, color=color, alpha=0.11, lw=0)
    every = max(1, len(rounds) // 8)
    panel.plot(rounds, means, color=color, marker=marker, markevery=every, ms=5, lw=1.7, mec="none")


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
            [before.final.mean, cell.final.mean], [row, row], color=color, lw=1.1, alpha=0.55
        )
        panel.plot(before.final.mean, row, "o", mfc="none", mec=color, ms=6, alpha=0.8)
    panel.plot(cell.final.mean, row, "|", color=INK, ms=13, mew=1.6)
    panel.plot(
        cell.final.values, [row] * cell.final.n, "o", color=color, ms=6, mec="none", alpha=0.85
    )
    panel.annotate(
        f"{cell.final.mean:.1%}",
        (1, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        size=7.5,
    )


def _chance(run: Run) -> float:
    return float(run.header["chance"])  # pyrefly: ignore


def _chance_line(panel: Axes, run: Run) -> None:
    chance = _chance(run)
    panel.axhline(chance, color=MUTED, lw=1, ls="--")
    panel.set_ylim(bottom=0)
    panel.annotate(
        f"guessing, {chance:.0%}",
        (1, chance),
        (-2, -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MUTED,
        size=7.5,
    )


def _squares(panel: Axes, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a square for every number above zero; the largest fills its place."""
    sides = np.sqrt(counts / max(1, counts.max())) * 0.94
    squares = [
        Rectangle((k - side / 2, i - side / 2), side, side)
        for i, row in enumerate(sides)
        for k, side in enumerate(row)
        if side
    ]
    panel.add_collection(PatchCollection(squares, facecolor=BAR, lw=0))
    panel.set_aspect("auto")
    panel.set_xlim(-0.6, len(classes) - 0.4)
    panel.set_xticks(
        range(len(classes)), list(classes), rotation=45, ha="right", rotation_mode="anchor"
    )
    panel.tick_params(length=0, labelsize=7.5)
    step = 1 if len(counts) <= 24 else 5
    panel.set_yticks(range(0, len(counts), step))
    panel.grid(axis="x", visible=True)
    panel.spines[:].set_visible(False)
