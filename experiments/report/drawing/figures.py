"""How figures look, how they are saved, and the picture of a deal."""

import io
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

from experiments.report.labels import Group
from fl.reproducibility.files import write_whole

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
    "svg.fonttype": "none",  # text stays text, in SVG
    "pdf.fonttype": 42,  # and in PDF
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


def deal(
    counts: Integer[np.ndarray, "clients classes"], classes: Sequence[str], title: str
) -> Figure:
    """Draw who holds which classes: a square's area is a number of examples, a bar a sum.

    Args:
        counts: how many examples of each class each client has.
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
        bars.set_title("examples", fontsize=7.5, fontweight="normal", pad=0)
        squares.set_ylim(len(shown) - 0.4, -0.6)
        squares.set_ylabel(
            "client" if clients == len(shown) else f"first {len(shown)} of {clients:,} clients"
        )
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as SVG, the same bytes every time. Its text is text.

    Verdana is as wide as DejaVu Sans, where a reader has not that.
    """
    text = _bytes(figure, "svg", {"Date": None, "Creator": None}).decode()
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes every time, at 200 dots an inch."""
    return _bytes(figure, "png", {"Software": None})


def pdf(figure: Figure) -> bytes:
    """Return a figure as PDF, the same bytes every time, with the font that its text is in."""
    return _bytes(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})


def save(figure: Figure, path: Path, as_pdf: bool = False) -> str:
    """Write a figure as PNG and as SVG, each whole or not at all, and return the SVG.

    Args:
        figure: what to write.
        path: without an ending.
        as_pdf: whether to write a PDF, too; without it, an older one goes.
    """
    text = svg(figure)
    write_whole(path.with_name(f"{path.name}.svg"), text)
    write_whole(path.with_name(f"{path.name}.png"), png(figure))
    beside = path.with_name(f"{path.name}.pdf")
    if as_pdf:
        write_whole(beside, pdf(figure))
    else:
        beside.unlink(missing_ok=True)
    return text


def _bytes(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata, transparent=kind != "png")
    return buffer.getvalue()


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
