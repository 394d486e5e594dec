"""A network's signals by depth: which layers are shown, their figures, and how these are drawn."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from experiments.report.drawing import panels

Layer = Mapping[str, Any]
"""The fields of `fl.nn.probes.Layer`; None or NaN where a figure is not finite or not there."""
Layers = Sequence[Layer]

WORDS = {
    "acsm": "Squared mean (ACSM)",
    "acv": "Variance (ACV)",
    "gradient_acv": "Gradient: variance (ACV)",
    "dead": "Dead channels",
}
"""The figures of a layer that are drawn."""

FLOORS = {"acsm": 1e-6, "acv": 1e-6, "gradient_acv": 1e-30}
"""Where smaller values are drawn: a logarithmic axis has no 0, and what is left is rounding."""


def stations(layers: Layers, figure: str) -> list[Layer]:
    """Return the layers that show a figure by depth: merges, or else activations.

    A merge is the end of a residual block, where Brock et al. measure (arXiv 2101.08692, section
    3). Channels die in activations alone.
    """
    kind = "activation" if figure == "dead" or not residual(layers) else "merge"
    return [layer for layer in layers if layer["kind"] == kind]


def residual(layers: Layers) -> bool:
    """Say whether a network merges residual branches."""
    return any(layer["kind"] == "merge" for layer in layers)


def level(layers: Layers, figure: str) -> str:
    """Say what depth is counted by."""
    return "residual block" if residual(layers) and figure != "dead" else "activation"


def shown(layers: Layers, figure: str) -> list[float]:
    """Return a figure by depth; NaN where it is not finite."""
    return _finite(stations(layers, figure), figure)


def below_floor(layers: Layers) -> bool:
    """Say whether a network has a figure too small for its axis."""
    return any(value < floor for figure, floor in FLOORS.items() for value in shown(layers, figure))


def means(measured: Sequence[Layers], figure: str) -> list[float]:
    """Return a figure by depth as the mean over networks; NaN where not all are finite."""
    return [fmean(values) for values in _by_depth(measured, figure)]


def draw(
    panel: Axes,
    figure: str,
    line: Sequence[Layers],
    spread: Sequence[Layers],
    look: tuple[str, str],
) -> None:
    """Draw a figure by depth, and dashed the variance of residual branches below that of blocks.

    Args:
        panel: where.
        figure: a key of `WORDS`.
        line: networks of one make, whose mean is the line.
        spread: networks of the same make whose lowest and highest make the band.
        look: colour and marker.
    """
    heights = _raised(means(line, figure), figure)
    at = range(1, len(heights) + 1)
    panels.band(panel, at, heights, _ends(spread, figure) if spread else (heights,) * 2, look)
    if figure == "acv" and residual(line[0]):
        branches = [_finite(stations(layers, figure), "branch_acv") for layers in line]
        dashed = [fmean(values) for values in zip(*branches, strict=True)]
        panel.plot(at, _raised(dashed, figure), color=look[0], lw=1.2, ls=(0, (3, 2)))
    panel.set_xlabel(level(line[0], figure))


def finish(panel: Axes, figure: str) -> None:
    """Give a panel that is drawn its axes: depth, and a logarithmic one for all but shares."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if figure == "dead":
        panel.set_ylim(-0.03, 1.03)
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())
    low, high = (math.log10(end) for end in panel.get_ylim())
    if math.floor(high) - math.ceil(low) < 1:  # a scale takes two powers of ten to be read
        panel.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))


def _finite(layers: Layers, figure: str) -> list[float]:
    found = [layer[figure] for layer in layers]
    return [v if v is not None and math.isfinite(v) else math.nan for v in found]


def _by_depth(measured: Sequence[Layers], figure: str) -> list[tuple[float, ...]]:
    return list(zip(*(shown(layers, figure) for layers in measured), strict=True))


def _ends(measured: Sequence[Layers], figure: str) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest by depth, of the networks where it is finite, if any."""
    finite = [[v for v in values if math.isfinite(v)] for values in _by_depth(measured, figure)]
    lows = [min(values, default=math.nan) for values in finite]
    highs = [max(values, default=math.nan) for values in finite]
    return _raised(lows, figure), _raised(highs, figure)


def _raised(values: Sequence[float], figure: str) -> list[float]:
    floor = FLOORS.get(figure, 0.0)
    return [floor if value < floor else value for value in values]
