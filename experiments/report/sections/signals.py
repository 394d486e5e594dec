"""What becomes of signals over rounds: on the shared network, on clients', and between clients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report import csv_files, words
from experiments.report.drawing import panels, profiles
from experiments.report.drawing.figures import style
from experiments.report.drawing.profiles import Layers
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose
from experiments.report.results import Results, Run

FIGURES = ("acv", "acsm", "gradient_acv")
"""The figures of a layer that are drawn, in this order."""

DIVERGENCES = {
    "update_cosine": "cosine between updates",
    "scalar_spread": "spread of activation scalars",
}
"""How far clients are apart, in words."""

CAPTIONS = {
    "acv": "Variance by depth, in the first, the middle and the last round that was measured.",
    "acsm": "Squared mean by depth, in the same rounds.",
    "gradient_acv": "Variance of the gradient by depth, in the same rounds.",
    "update_cosine": "Cosine between the updates of two clients, over rounds.",
    "scalar_spread": "Spread of activation scalars across clients, over rounds, where there are "
    "any.",
}
"""What stands below each figure."""

_HOW = (
    "*ACSM* (average channel squared mean) is the squared mean of a channel over images and space, "
    "as a mean over channels; *ACV* (average channel variance) is the variance of a channel over "
    "images and space, as a mean over channels (Brock et al. 2021, arXiv 2101.08692, section 3). "
    "Their sum is the mean square of what a layer puts out. They are drawn by depth, from the "
    "first layer to the last: at the output of every activation or, in a network with residual "
    "branches, wherever one is merged, with the ACV of the branch as a dashed line. The "
    "gradient is that of the mean loss with regard to the same outputs.",
    "A level line is a signal that keeps its size. Where ACV falls towards 0, all images look the "
    "same to the layers behind; where ACSM is far above ACV, a channel says the same of all of "
    "them; and where the gradient falls from right to left, the first layers hear little of the "
    "loss. None of this says how accurate a network is.",
    "A line is the shared network, after averaging, in a batch of training images that is the same "
    "in every round; a band reaches from the lowest to the highest of the round's clients, each "
    "with its own network, before averaging, in a batch of its own images. So a band is also as "
    "wide as the clients' images differ, and where a line leaves its band, either averaging or the "
    "images changed the signal.",
)
_ALSO = (
    "Networks are measured in training mode, so BatchNorm normalizes by the batch that is "
    "measured. Figures that are not finite are left out; what is below the axis is drawn on its "
    "floor. The numbers are in signals.csv and divergence.csv; signals.jsonl in a run's folder has "
    "those of all other layers, rounds and seeds."
)
_DIVERGENCE = (
    "How far the clients of a round are apart. *Cosine between updates*: of the angle between what "
    "two clients add to the network that both began with, as a mean over pairs; 1 is one direction "
    "for all, 0 is none in common. *Spread of activation scalars*: the variance of "
    "each learnable scalar across clients, before averaging, as a mean over all scalars, and of "
    "that the square root, in the units that scalars are stored in (some as logarithms)."
)


@dataclass(frozen=True)
class Signals:
    """What one run measured, by round."""

    run: Run
    shared: dict[int, Layers]
    """The shared network after the round."""
    clients: dict[int, dict[int, Layers]]
    """The clients' own networks in the round, before averaging, by partition."""
    divergence: dict[int, Mapping]
    """How far these are apart."""
    images: set[int]
    """How many images the batches had."""


def read(results: Results) -> list[Signals]:
    """Read the signals of every contender and condition: of its lowest seed that has any.

    One seed, so that a report of many runs stays quick. Unfinished runs count where none is
    finished. A ledger has no signals.

    Raises:
        ConfigError: a file can't be read.
    """
    found: dict[tuple[Group, Group], Signals] = {}
    for run in results.finished or results.runs:
        key = run.condition, run.series
        if key not in found and run.journal and (lines := run.journal.signals()):
            found[key] = _sorted_out(run, lines)
    return [found[key] for key in sorted(found)]


def figure(found: Sequence[Signals], results: Results, key: str) -> Figure | None:
    """Draw a figure of layers by depth: a row a condition, a column the first, middle, last round.

    None where nothing was measured.

    Args:
        found: of `read`.
        results: all runs.
        key: one of `FIGURES`.
    """
    if not found:
        return None
    rows = {condition: _rounds(found, condition) for condition in _conditions(found)}
    columns = max(map(len, rows.values()))
    places = [
        (condition, number)
        for condition, rounds in rows.items()
        for number in [*rounds, *[None] * (columns - len(rounds))]
    ]
    titles = [
        f"{condition}, round {number}" if len(rows) > 1 else f"round {number}"
        for condition, number in places
    ]
    with panels.grid(titles, height=2.6, top=0.5, most=columns) as drawn:
        for panel, (condition, number) in zip(drawn.all, places, strict=True):
            if number is None:
                panel.remove()
                continue
            for one in (s for s in found if s.run.condition == condition and number in s.shared):
                look = style(one.run.series, results.series)
                clients = list(one.clients.get(number, {}).values())
                profiles.draw(panel, key, [one.shared[number]], clients, look)
            profiles.finish(panel, key)
        for panel in drawn.leftmost:
            panel.set_ylabel(profiles.WORDS[key])
        drawn.legend(_series(found), results.series)
    return drawn.figure


def divergence_figure(found: Sequence[Signals], results: Results, key: str) -> Figure | None:
    """Draw how far clients are apart over rounds: a panel a condition; None where nothing is known.

    Args:
        found: of `read`.
        results: all runs.
        key: one of `DIVERGENCES`.
    """
    lines = [(one, _over_rounds(one, key)) for one in found]
    known = [(one, values) for one, values in lines if values]
    if not known:
        return None
    conditions = _conditions([one for one, _ in known])
    with panels.grid([str(where) for where in conditions], height=2.6, top=0.5) as drawn:
        for panel, condition in zip(drawn.all, conditions, strict=True):
            for one, values in known:
                if one.run.condition == condition:
                    level = list(values.values())
                    look = style(one.run.series, results.series)
                    panels.band(panel, list(values), level, (level, level), look)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("round")
        for panel in drawn.leftmost:
            panel.set_ylabel(DIVERGENCES[key])
            panel.set_ylim(bottom=0 if key == "scalar_spread" else None)
        drawn.legend(_series([one for one, _ in known]), results.series)
    return drawn.figure


def section(
    found: Sequence[Signals], results: Results, pictures: Mapping[str, Html | None]
) -> Html:
    """Make the section on signals.

    Args:
        found: of `read`; not empty.
        results: all runs.
        pictures: of `figure` and `divergence_figure`, by key; None where there is none.
    """
    depth = [_drawn(pictures[key], key) for key in FIGURES]
    between = [_drawn(pictures[key], key) for key in DIVERGENCES if pictures[key]]
    return element(
        "section",
        element("h2", "Signals"),
        [element("p", prose(text)) for text in (*_HOW, _which(found, results) + _ALSO)],
        depth,
        [element("h3", "How far clients are apart"), element("p", prose(_DIVERGENCE)), *between]
        if between
        else None,
    )


def signals(found: Sequence[Signals]) -> str:
    """Return the figures by depth as CSV: a row a network and station, of the rounds drawn."""
    return csv_files.as_csv(
        {**_whose(one.run), "round": number, "partition": partition, "station": place, **layer}
        for one in found
        for number in _rounds(found, one.run.condition)
        for partition, layers in _networks(one, number)
        for place, layer in enumerate(profiles.stations(layers, "acv"), start=1)
    )


def divergence(found: Sequence[Signals]) -> str:
    """Return how far clients are apart as CSV: a row a run and round."""
    return csv_files.as_csv(
        {
            **_whose(one.run),
            "round": number,
            "clients": line["clients"],
            **{key: _divergence_of(line, key) for key in DIVERGENCES},
        }
        for one in found
        for number, line in one.divergence.items()
    )


def _sorted_out(run: Run, lines: Sequence[Mapping]) -> Signals:
    found = Signals(run, {}, {}, {}, set())
    for line in lines:
        number = line["round"]
        if "divergence" in line:
            if line["divergence"]["clients"] > 1:  # one client is nowhere apart from another
                found.divergence[number] = line["divergence"]
            continue
        found.images.add(line["images"])
        if line["partition"] is None:
            found.shared[number] = line["layers"]
        else:
            found.clients.setdefault(number, {})[line["partition"]] = line["layers"]
    return found


def _which(found: Sequence[Signals], results: Results) -> str:
    """Say which seeds are drawn, and what batches of several sizes do to gradients."""
    seeds = ", ".join(map(str, sorted({one.run.seed for one in found})))
    noun = words.series_noun(results)
    text = f"Drawn is one seed a {noun} and condition, the lowest that was measured ({seeds}). "
    images = set[int]().union(*(one.images for one in found))
    if len(images) > 1:
        text += (
            f"Batches had {min(images)} to {max(images)} images, as clients hold few or many. The "
            "loss is a mean over them, so half the images alone make a gradient's ACV four times "
            "as large: compare gradients along a line, and bands with care. "
        )
    return text


def _conditions(found: Sequence[Signals]) -> list[Group]:
    return sorted({one.run.condition for one in found})


def _series(found: Sequence[Signals]) -> list[Group]:
    return sorted({one.run.series for one in found})


def _rounds(found: Sequence[Signals], condition: Group) -> list[int]:
    """Return the first, the middle and the last round measured under a condition."""
    rounds = sorted({n for one in found if one.run.condition == condition for n in one.shared})
    return sorted({rounds[0], rounds[len(rounds) // 2], rounds[-1]})


def _networks(one: Signals, number: int) -> list[tuple[int | str, Layers]]:
    """Return the networks of a round with the partition of each; the shared one has none."""
    shared = [("", one.shared[number])] if number in one.shared else []
    return [*shared, *one.clients.get(number, {}).items()]


def _over_rounds(one: Signals, key: str) -> dict[int, float]:
    """Return a figure of how far clients are apart by round, where it is known."""
    values = {number: _divergence_of(line, key) for number, line in sorted(one.divergence.items())}
    return {number: value for number, value in values.items() if value is not None}


def _divergence_of(line: Mapping, key: str) -> float | None:
    """Return a figure of a round's divergence; None where it is not finite or not there."""
    if key == "update_cosine":
        return line[key]
    found = line["scalar_variance"].values()
    variances = [v for value in found for v in (value if isinstance(value, list) else [value])]
    if not variances or None in variances:
        return None
    return math.sqrt(fmean(variances))


def _whose(run: Run) -> dict[str, object]:
    return {"series": str(run.series), "condition": str(run.condition), "seed": run.seed}


def _drawn(picture: Html | None, key: str) -> Html:
    about = element("figcaption", CAPTIONS[key])
    return element("figure", element("div", picture, class_="wide"), about)
