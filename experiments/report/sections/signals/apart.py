"""How far the clients of a round are apart: over rounds, and by layer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.report import csv_files
from experiments.report.drawing import panels
from experiments.report.drawing.figures import style
from experiments.report.labels import Group
from experiments.report.results import Results
from experiments.report.sections.signals import by_round
from experiments.report.sections.signals.measured import (
    Signals,
    conditions,
    series,
    whose,
)

WORDS = {
    "cancelled": "cancelled by averaging",
    "update_cosine": "cosine between updates",
    "scalar_spread": "spread of activation scalars",
    "statistics_mean": "gap of running means",
}
"""What is drawn over rounds, in words."""
BY_LAYER = "cancelled_by_layer"
"""What is drawn by layer."""
CAPTIONS = {
    "cancelled": "Share of clients' movement that averaging cancels, over rounds.",
    BY_LAYER: "The same by layer, from the first convolution to the classifier, in the first, the "
    "middle and the last round that was measured.",
    "update_cosine": "Cosine between the updates of two clients, over rounds.",
    "scalar_spread": "Spread of activation scalars across clients, over rounds, where there are "
    "any.",
    "statistics_mean": "Gap between clients' running means and the shared ones, over rounds, where "
    "there are any.",
}
"""What stands below each figure."""
_UPDATES = ("cancelled", "update_cosine")
"""What a line says of updates, of the whole network and of each layer."""
_KINDS = ("mean", "variance")
"""Of running statistics."""
_SHARES = ("cancelled",)
_FROM_ZERO = ("scalar_spread", "statistics_mean")


def figure(found: Sequence[Signals], results: Results, key: str) -> Figure | None:
    """Draw how far clients are apart over rounds: a panel a condition; None where nothing is known.

    Args:
        found: of `read`.
        results: all runs.
        key: of `WORDS`.
    """
    lines = [(one, _over_rounds(one, key)) for one in found]
    known = [(one, values) for one, values in lines if values]
    if not known:
        return None
    where = conditions([one for one, _ in known])
    with panels.grid([str(one) for one in where], height=2.6, top=0.5) as drawn:
        for panel, condition in zip(drawn.all, where, strict=True):
            for one, values in known:
                if one.run.condition == condition:
                    level = list(values.values())
                    look = style(one.run.series, results.series)
                    panels.band(panel, list(values), level, (level, level), look)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("round")
            if key in _SHARES:
                _as_share(panel)
        for panel in drawn.leftmost:
            panel.set_ylabel(WORDS[key])
            if key in _FROM_ZERO:
                panel.set_ylim(bottom=0)
        drawn.legend(series([one for one, _ in known]), results.series)
    return drawn.figure


def layer_figure(found: Sequence[Signals], results: Results) -> Figure | None:
    """Draw what averaging cancels by layer: a row a condition, a column a round; or None.

    Drawn are layers with weights, which all contenders of a skeleton have.
    """
    known = [(one, rounds) for one in found if (rounds := _rounds_by_layer(one))]
    if not known:
        return None
    named = [one for one, _ in known]

    def draw(panel: Axes, condition: Group, number: int) -> None:
        there = (one for one, rounds in known if number in rounds)
        for one in (one for one in there if one.run.condition == condition):
            shares = _by_layer(one, number)
            look = style(one.run.series, results.series)
            panels.band(panel, range(1, len(shares) + 1), shares, (shares, shares), look)

    def finish(panel: Axes) -> None:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        panel.set_xlabel("layer with weights")
        _as_share(panel)

    rows = {
        condition: by_round.spread(
            {n for one, rounds in known if one.run.condition == condition for n in rounds}
        )
        for condition in conditions(named)
    }
    legend = (series(named), results.series)
    return by_round.figure(rows, draw, finish, WORDS["cancelled"], legend)


def divergence(found: Sequence[Signals]) -> str:
    """Return how far clients are apart as CSV: a row a run, round and layer.

    Rows without a layer are about the whole network.
    """
    return csv_files.as_csv(
        {
            **whose(one.run),
            "round": number,
            "layer": layer,
            "clients": line["clients"],
            **row,
        }
        for one in found
        for number, line in one.divergence.items()
        for layer, row in _rows(one, number)
    )


def _rows(one: Signals, number: int) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Yield what is known of the whole network in a round, and then of each layer."""
    gaps, layers = _gaps(one, number), one.divergence[number].get("layers", {})
    yield "", {key: _value(one, number, key) for key in (*WORDS, "statistics_variance")}
    for layer in dict.fromkeys((*layers, *gaps)):
        told = {key: layers.get(layer, {}).get(key) for key in _UPDATES}
        of = gaps.get(layer, {})
        yield layer, {**told, **{f"statistics_{kind}": of.get(kind) for kind in _KINDS}}


def _over_rounds(one: Signals, key: str) -> dict[int, float]:
    """Return a figure of how far clients are apart by round, where it is known."""
    values = {number: _value(one, number, key) for number in sorted(one.divergence)}
    return {number: value for number, value in values.items() if value is not None}


def _value(one: Signals, number: int, key: str) -> float | None:
    """Return a figure of a round; None where it is not finite or not there."""
    line = one.divergence[number]
    if key in _UPDATES:
        return line.get(key)
    if key == "scalar_spread":
        found = line["scalar_variance"].values()
        each = [v for value in found for v in (value if isinstance(value, list) else [value])]
        variance = _mean(each)
        return None if variance is None else math.sqrt(variance)
    kind = key.removeprefix("statistics_")
    return _mean([gap[kind] for gap in _gaps(one, number).values()])


def _gaps(one: Signals, number: int) -> dict[str, Mapping[str, float | None]]:
    """Return the gaps of running statistics by layer, as means over a round's clients."""
    told = one.statistics.get(number, [])
    return {
        layer: {kind: _mean([of[layer][kind] for of in told]) for kind in _KINDS}
        for layer in (told[0] if told else ())
    }


def _rounds_by_layer(one: Signals) -> set[int]:
    """Return the rounds that say of layers what averaging cancels; earlier versions don't."""
    return {n for n, line in one.divergence.items() if "layers" in line and n in one.shared}


def _by_layer(one: Signals, number: int) -> list[float]:
    """Return what averaging cancels of each layer with weights; NaN where that is not known."""
    told = one.divergence[number]["layers"]
    names = dict.fromkeys(x["name"] for x in one.shared[number] if x["kind"] == "weights")
    values = [told.get(name, {}).get("cancelled") for name in names]
    return [math.nan if value is None else value for value in values]


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where there is nothing, or a figure that was not finite."""
    known = list(values)
    finite = [value for value in known if value is not None]
    return fmean(finite) if finite and len(finite) == len(known) else None


def _as_share(panel: Axes) -> None:
    panel.set_ylim(-0.03, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
