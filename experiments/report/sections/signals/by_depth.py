"""Signals by depth: the shared network after averaging, and clients' networks before it."""

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import csv_files
from experiments.report.drawing import profiles
from experiments.report.drawing.figures import style
from experiments.report.drawing.profiles import Layers
from experiments.report.labels import Group
from experiments.report.results import Results
from experiments.report.sections.signals import by_round
from experiments.report.sections.signals.measured import (
    Signals,
    conditions,
    series,
    whose,
)
from fl.server.contents import COMMON, OWN

CAPTIONS = {
    "acv": "Variance by depth, in the first, the middle and the last round that was measured.",
    "acsm": "Squared mean by depth, in the same rounds.",
    "gradient_acv": "Variance of the gradient by depth, in the same rounds.",
}
"""The figures of a layer that are drawn, in this order, and what stands below each."""


def figure(found: Sequence[Signals], results: Results, key: str) -> Figure | None:
    """Draw a figure of layers by depth: a row a condition, a column the first, middle, last round.

    A line is the shared network, a band its clients' in the same batch. None where nothing was
    measured.

    Args:
        found: of `read`.
        results: all runs.
        key: of `CAPTIONS`.
    """
    if not found:
        return None

    def draw(panel: Axes, condition: Group, number: int) -> None:
        for one in (s for s in found if s.run.condition == condition and number in s.shared):
            look = style(one.run.series, results.series)
            clients = list(one.clients.get(number, {}).values())
            profiles.draw(panel, key, [one.shared[number]], clients, look)

    rows = {condition: _rounds(found, condition) for condition in conditions(found)}
    finish = partial(profiles.finish, figure=key)
    legend = (series(found), results.series)
    return by_round.figure(rows, draw, finish, profiles.WORDS[key], legend)


def signals(found: Sequence[Signals]) -> str:
    """Return the figures by depth as CSV: a row a network, batch and station, of rounds drawn."""
    return csv_files.as_csv(
        {
            **whose(one.run),
            "round": number,
            "partition": "" if partition is None else partition,
            "batch": batch,
            "images": one.images[number, partition, batch],
            "station": place,
            **layer,
        }
        for one in found
        for number in _rounds(found, one.run.condition)
        for partition, batch, layers in _networks(one, number)
        for place, layer in enumerate(profiles.stations(layers, "acv"), start=1)
    )


def _rounds(found: Sequence[Signals], condition: Group) -> list[int]:
    """Return the first, the middle and the last round measured under a condition."""
    return by_round.spread(
        {n for one in found if one.run.condition == condition for n in one.shared}
    )


def _networks(one: Signals, number: int) -> Iterator[tuple[int | None, str, Layers]]:
    """Yield the networks of a round with partition and batch of each.

    The shared one comes first and has no partition; clients' in the common batch come before those
    in their own.
    """
    if number in one.shared:
        yield None, COMMON, one.shared[number]
    for batch, clients in ((COMMON, one.clients), (OWN, one.own)):
        for partition, layers in clients.get(number, {}).items():
            yield partition, batch, layers
