"""What local training does for the clients, on images of their own: for most, and for the least."""

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.report import labels, tables, words
from experiments.report.drawing import panels
from experiments.report.drawing.figures import INK, MUTED, style
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.measure import Measure, Spread
from experiments.report.results import Results
from experiments.report.sections.held_out import Report, Served, served

MOST_DOTS = 200
"""Dots in a row of the figure; of more clients, as many are drawn, evenly by their gain."""

_SIZES = 5

All = Mapping[tuple[Group, Group], Served]

_COLUMNS = {
    "All held-out images in the last round": ("shared network", "own networks", "gain", "guessing"),
    "Each client's last report": ("lowest tenth", "median", "clients that lose"),
}


def section(results: Results, picture: Html | None) -> Html | None:
    """Make the section on networks as the clients trained them; None where no image is held out.

    Args:
        results: all runs.
        picture: of `figure`.
    """
    found = served(results)
    if not found:
        return None
    measure = results.measure
    worse = "Left" if measure.larger else "Right"
    caption = (
        "A dot is a client of one seed, placed by the gain in its last report; the more held-out "
        f"images, the larger. {worse} of the line, the own network is worse than the shared one "
        "that it came from. The bar and the number are the median over clients; heights within a "
        "row mean nothing."
    )
    if any(len(own.latest) > MOST_DOTS for own in found.values()):
        caption += f" Of more than {MOST_DOTS} clients, {MOST_DOTS} are drawn, evenly by gain."
    return element(
        "section",
        element("h2", "What local training does for each client"),
        [element("p", prose(text)) for text in _definitions(results, found)],
        _table(results, found),
        [element("p", prose(text)) for text in _cautions(results, found)],
        element("figure", element("div", picture, class_="wide"), element("figcaption", caption)),
    )


def figure(results: Results) -> Figure | None:
    """Draw each client's last gain: a panel a condition, a row a contender, a dot a client.

    None where no image is held out.
    """
    found = served(results)
    if not found:
        return None
    conditions = [c for c in results.conditions if any(where == c for _, where in found)]
    series = [s for s in results.series if any(own == s for own, _ in found)]
    largest = max(report.images for own in found.values() for report in own.latest)
    with panels.grid([str(c) for c in conditions], 0.8 + 0.46 * len(series)) as drawn:
        for panel, condition in zip(drawn.all, conditions, strict=True):
            _prepare(panel, results.measure)
            for row, name in enumerate(series):
                if (name, condition) in found:
                    color, _ = style(name, results.series)
                    _swarm(
                        panel, row, found[name, condition].latest, color, largest, results.measure
                    )
        first = drawn.all[0]
        first.set_yticks(range(len(series)), [str(name) for name in series])
        first.set_ylim(len(series) - 0.5, -0.5)
        low, high = first.get_xlim()
        most = min(high, 1) if results.measure.fraction else high
        first.set_xticks([t for t in first.get_xticks() if low <= t <= most])
        first.set_xlim(low, high + 0.18 * (high - low))
    return drawn.figure


def _prepare(panel: Axes, measure: Measure) -> None:
    panel.axvline(0, color=MUTED, lw=1)
    panel.grid(axis="x", visible=True)
    panel.tick_params(left=False)
    write = _whole_points if measure.fraction else measure.change
    panel.xaxis.set_major_formatter(FuncFormatter(lambda gain, _: write(gain)))
    what = "gain by local training, in points"
    panel.set_xlabel(what if measure.fraction else f"change of {measure.title} by local training")


def _swarm(
    panel: Axes, row: int, reports: list[Report], color: str, largest: int, measure: Measure
) -> None:
    """Draw a row of dots, spread up and down by their rank so that equal gains stay apart.

    A dot's area is in proportion to a client's images, in steps; `largest` has the largest dot.
    """
    ordered = sorted(reports, key=lambda report: (report.gain, report.images))
    middle = float(np.median([report.gain for report in ordered]))
    if len(ordered) > MOST_DOTS:
        places = np.linspace(0, len(ordered) - 1, MOST_DOTS).round().astype(int)
        ordered = [ordered[place] for place in places]
    gains = np.array([report.gain for report in ordered])
    heights = row + 0.56 * ((np.arange(len(ordered)) * 0.618034) % 1 - 0.5)
    sizes = np.ceil([_SIZES * report.images / largest for report in ordered])
    for size in range(1, _SIZES + 1):  # dots of one size make a small SVG
        own, diameter = sizes == size, 5.4 * (size / _SIZES) ** 0.5
        panel.plot(gains[own], heights[own], "o", color=color, ms=diameter, mec="none", alpha=0.7)
    panel.plot(middle, row, "|", color=INK, ms=17, mew=1.6)
    panel.annotate(
        measure.change(middle),
        (1, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        size=7.5,
    )


def _definitions(results: Results, found: All) -> list[str]:
    """Say whose networks are scored, on which images, and what the columns are."""
    knobs = [run.knobs for run in results.finished if run.knobs.get("partition.held-out")]
    kept = " or ".join(f"{share:.0%}" for share in labels.values(knobs, "partition.held-out"))
    replied = [len(own.last) for served in found.values() for own in served.scores]
    ever = [len(own.latest) for served in found.values() for own in served.scores]
    clients = " or ".join(map(str, labels.values(knobs, "partition.clients")))
    seeds = max(len(own.scores) for own in found.values())
    measure = results.measure
    named = "Accuracies" if measure.is_accuracy else "Values"
    unit = ", in percentage points" if measure.fraction else f"; {measure.direction} is better"
    over = "right answers over images, of" if measure.is_accuracy else f"the {measure.title} of"
    spread = (
        f" {named} are means over seeds, with the lowest and the highest seed below; gains are "
        "taken seed by seed, and clients counted over all seeds."
    )
    return [
        f"Each client keeps {kept} of its images from training: its *held-out* images. Whenever it "
        "is asked, it scores two networks on them: the *shared* network as it receives it, and its "
        "*own* network, which is the same after training on the client's other images and before "
        f"the server averages. The *gain* is the own network's {measure.title} less the shared "
        f"one's{unit}.",
        "*The last round* is a run's last in which a client with held-out images replied, and only "
        f"those that replied in it count: {_between(replied)} a run. {named} are {over} "
        "all these clients together, so a client weighs as much as its number of "
        "held-out images. The shared network there is the one that the round began with. In *each "
        "client's last report* everyone who ever replied counts once, with the last round in which "
        "it did, which may be an early one, and whatever its number of images: "
        f"{_between(ever)} of {clients} clients a run. The others, who may be those served worst, "
        "are not in these columns. A tenth of the clients that replied (rounded up) get no further "
        "than the *lowest tenth*. A client *loses* if its own "
        "network is worse than the shared one that it came from." + (spread if seeds > 1 else ""),
    ]


def _cautions(results: Results, found: All) -> list[str]:
    """Say what the values do not mean."""
    measure = results.measure
    images = [report.images for own in found.values() for report in own.latest]
    texts = [
        "**A client's own network is scored on the classes that the client has**, which may be "
        "few: with one class, always naming it scores 100%. A gain says that a network fits "
        "the client's own mix of classes better, not that it knows more; what it unlearned of "
        "other classes is not measured here. "
    ]
    if not measure.is_accuracy:
        texts[0] = (
            "**A client's own network is scored on what the client holds.** A gain says that a "
            "network fits that better, not that it knows more; what it unlearned of what others "
            "hold is not measured here."
        )
    elif any(own.guess for own in found.values()):
        texts[0] += (
            "*Guessing* is what the clients of the last round get on the same images if each "
            "always names the most frequent class of all its images; read accuracies against that."
        )
    else:
        texts[0] += (
            "How far guessing the most frequent class gets can't be said here, since the deal "
            "can't be repeated on this machine."
        )
    few = f"A client has {_between(images)} held-out images (median {np.median(images):,g})"
    texts.append(f"{few}; with few of them, its {measure.title} moves in coarse steps.")
    texts += _kept(results)
    if any(run.knobs.get("partition.kind") == "feature-noise" for run in results.finished):
        texts.append("Held-out images are scored without the noise that clients train with.")
    return texts


def _kept(results: Results) -> list[str]:
    """Say which of a client's own tensors a network is scored with."""
    texts = []
    policies = {run.knobs.get("state.bn") for run in results.finished}
    if "local" in policies:
        texts.append(
            "With state.bn=local the shared network is scored with the client's own statistics, "
            "which are as old as the last round that the client was asked in."
        )
    if any(run.knobs.get("state.local", "none") != "none" for run in results.finished):
        texts.append(
            "With state.local the shared network is scored with the parameters that stay with the "
            "client, as they were after the last round that it was asked in."
        )
    if "drop" in policies:
        texts.append(
            "With state.bn=drop networks are scored with the statistics of batches of the client's "
            "own held-out images, which may be few and of few classes."
        )
    return texts


def _table(results: Results, found: All) -> Html:
    top = [element("th", words.series_noun(results), rowspan="2", scope="col")]
    top += [
        element("th", title, colspan=str(len(names)), scope="colgroup", class_="group")
        for title, names in _COLUMNS.items()
    ]
    names = [name for names in _COLUMNS.values() for name in names]
    second = [element("th", name, scope="col", class_="number") for name in names]
    bodies = []
    for condition in results.conditions:
        rows = [
            [tables.contender(series, results), *_figures(found[series, condition])]
            for series in results.series
            if (series, condition) in found
        ]
        if rows:
            bodies.append(tables.part(str(condition), len(names) + 1, rows))
    return table([top, second], bodies, "personal")


def _figures(own: Served) -> list[Html]:
    gain = own.over_seeds("gain")
    measure = own.runs[0].measure
    ends = f"{measure.change(gain.low)} to {measure.change(gain.high)}" if gain.n > 1 else ""
    losers = sum(scores.losers for scores in own.scores)
    return [
        _value(own.over_seeds("shared"), measure),
        _value(own.over_seeds("own"), measure),
        _number(measure.change(gain.mean), ends),
        _value(own.guess, measure),
        _value(own.over_seeds("lowest_tenth"), measure),
        _value(own.over_seeds("median"), measure),
        _number(f"{losers:,} of {len(own.latest):,}"),
    ]


def _value(spread: Spread | None, measure: Measure) -> Html:
    if spread is None:
        return element("td", "–", class_="number muted")
    return _number(measure.value(spread.mean), measure.extent(spread.values))


def _number(text: str, remark: str = "") -> Html:
    small = element("small", remark) if remark else None
    return element("td", element("span", text), small, class_="number")


def _between(numbers: Iterable[int]) -> str:
    """Write the least and the most: ``3 to 12``; the number alone where these are one."""
    found = list(numbers)
    least, most = min(found), max(found)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _whole_points(gain: float) -> str:
    points = round(gain * 100)
    return f"{points:+}".replace("-", "−") if points else "0"
