"""The sections that answer: in short, in figures, in tables, and what not to overlook."""

import math
from collections.abc import Iterable

from experiments.report import tables, verdicts, words
from experiments.report.markup import Html, element, prose
from experiments.report.results import Results
from experiments.report.sections import circumstances
from experiments.report.sections.circumstances import Deal
from experiments.report.sections.decision import brief, studies
from experiments.report.verdicts import wording
from experiments.statistics.endpoints import window
from partitions import measure


def answer(results: Results) -> Html:
    """Make the short answer: what verdicts carry, in ten lines at most.

    Without verdicts what the seeds at hand show is folded away.
    """
    if not results.finished:
        return element(
            "section",
            element("p", "No run is finished yet, so there is no answer."),
            class_="answer",
        )
    told = brief.lines(results)
    cautions = [verdicts.missing(), words.faults(results), words.rates(results)]
    cautions += [words.initial_weights(results), words.still_learning(results)]
    cautions += words.caveats(results)
    return element(
        "section",
        element("h2", "The short answer"),
        studies.asked(results),
        [_listed(told), element("p", wording.declared(results))] if told else _shown(results),
        [element("p", prose(text), class_="caution") for text in cautions if text],
        class_="answer",
    )


def _shown(results: Results) -> list[Html]:
    """Say what the seeds at hand show where no verdict says more: folded, if some would."""
    lines = [words.change(results, ladder[0], ladder[-1]) for ladder in results.ladders()]
    lines += [words.change(results, *pair) for pair in results.changes()]
    lines += [words.standing(results, c) for c in results.conditions if results.column(c)]
    listed = _listed(dict.fromkeys(lines))
    if not (headline := wording.too_few(results)):
        return [listed]
    folded = element("details", element("summary", "What these seeds show"), listed)
    return [element("p", headline, class_="headline"), folded]


def pictures(heat: Html | None, forest: Html | None) -> Html | None:
    """Make the two pictures that a decision is made by: heights, and differences."""
    marks = "▲\u00a0BETTER, △\u00a0BETTER-SMALL, =\u00a0EQUIVALENT, ▼\u00a0WORSE, ?\u00a0UNDECIDED"
    captions = (
        (heat, f"Means over seeds. Against the reference: {marks}."),
        (
            forest,
            "Differences seed by seed, with 95 % intervals or, of fewer than 5 seeds, the seeds. "
            "Grey: ± the margin. Filled: declared before the runs.",
        ),
    )
    drawn = [
        element("figure", element("div", plot, class_="wide"), element("figcaption", caption))
        for plot, caption in captions
        if plot
    ]
    return element("section", element("h2", "At a glance"), drawn) if drawn else None


def _folded(title: str, texts: Iterable[str | None]) -> Html:
    told = [element("p", prose(text)) for text in texts if text]
    return element("details", element("summary", title), told)


def _listed(lines: Iterable[str | None]) -> Html:
    return element("ul", [element("li", prose(line)) for line in lines if line])


def notices(results: Results) -> list[Html]:
    """Make a box for everything that a reader must not overlook."""
    boxes = []
    if results.unfinished:
        number = f"{len(results.unfinished)} of {words.count(len(results.runs), 'run')}"
        title = f"Unfinished, and therefore not counted: {number}."
        boxes.append([element("p", title), tables.unfinished(results)])
    if found := circumstances.disagreements(results.runs):
        title = "These runs came about under different circumstances; compare them with care:"
        boxes.append([element("p", title), element("ul", [element("li", line) for line in found])])
    if results.repeats:
        names = ", ".join(run.name for run in results.repeats)
        boxes.append(
            [element("p", f"Left out, since another run has the same knobs and seed: {names}.")]
        )
    return [element("aside", *box, class_="notice") for box in boxes]


def accuracy(results: Results, dots: Html, trend: Html | None) -> Html:
    """Make the section that answers the question: the figures, the table, and the changes."""
    changes, measure = tables.differences(results), results.measure
    unit = " in percentage points" if measure.fraction else ""
    heading = "How accurate it gets" if measure.is_accuracy else measure.heading
    caption = "A dot is a seed; the bar and the number are the mean; the dashed line is guessing."
    if results.changes():
        caption += " An open circle is the mean under the plainer condition."
    difference = f"Changes of the {measure.title}{unit}, seed by seed: the mean, and below it "
    difference += "the 95 % interval, or of fewer than 5 seeds the lowest and the highest."
    along = "Means over seeds, bars from the lowest to the highest seed; dashed: guessing."
    seeds = element("figure", element("div", dots, class_="wide"), element("figcaption", caption))
    return element(
        "section",
        element("h2", heading),
        element("figure", element("div", trend, class_="wide"), element("figcaption", along))
        if trend
        else None,
        element("details", element("summary", "Every seed"), seeds) if trend else seeds,
        element("h3", f"{measure.heading} {results.when}"),
        tables.verdict(results),
        _folded(
            "How to read it, and how verdicts are made",
            (_how_to_read(results), wording.method(results)),
        ),
        element(
            "details",
            element("summary", "What each change of condition does"),
            element("p", difference),
            changes,
        )
        if changes
        else None,
    )


def over_rounds(results: Results, curves: Html) -> Html:
    """Make the section on how the metric develops."""
    heading = results.measure.heading
    caption = (
        f"Test {results.measure.title} of the shared network; round 0 is untrained. Lines are "
        "means over seeds, bands reach from the lowest to the highest."
    )
    if not results.finished:
        caption += " All of these runs are unfinished."
    return element(
        "section",
        element("h2", f"{heading} over rounds"),
        element("figure", element("div", curves, class_="wide"), element("figcaption", caption)),
    )


def holders(drawn: list[tuple[Deal, Html]], faults: list[str]) -> Html:
    """Make the section on who holds which classes: the first seed openly, others folded."""
    seeds: dict[str, int] = {}
    for deal, _ in drawn:
        seeds.setdefault(deal.partition, deal.seed)
    first = [_holding(deal, svg) for deal, svg in drawn if seeds[deal.partition] == deal.seed]
    others = [_holding(deal, svg) for deal, svg in drawn if seeds[deal.partition] != deal.seed]
    folded = element(
        "details",
        element("summary", "The deals of the other seeds"),
        element("div", others, class_="deals"),
    )
    missing = "A deal can't be drawn here: "
    return element(
        "section",
        element("h2", "Who holds which classes"),
        element(
            "p",
            "A row is a client, the area of a mark its images of a class, a bar all of its images.",
        ),
        element("div", first, class_="deals"),
        folded if others else None,
        [element("p", missing, fault, class_="muted") for fault in faults],
    )


def _holding(deal: Deal, svg: Html) -> Html:
    skew = measure(deal.counts)
    sizes = (
        f"{skew.smallest:,} to {skew.largest:,}"
        if skew.smallest < skew.largest
        else f"{skew.largest:,}"
    )
    caption = (
        f"{skew.clients:,} clients hold {sizes} images each (median {skew.median:,g}; Gini "
        f"{skew.gini:.2f}); a mix is worth {skew.effective_classes:.1f} of {skew.classes} classes, "
        f"Jensen-Shannon distance from all images {skew.distance:.2f}."
    )
    return element("figure", svg, element("figcaption", caption))


def _late(results: Results) -> str:
    """Say over how many rounds a run's value is the mean."""
    found = {window(run.rounds_done) for run in results.finished}
    low, high = min(found), max(found)
    return words.count(high, "round") if low == high else f"{low} to {high} rounds"


def _how_to_read(results: Results) -> str:
    """Say what the numbers of the verdict's table are, and how far they can be trusted."""
    seeds = max(cell.outcome.n for cell in results.cells.values())
    text, measure = "", results.measure
    named = "Accuracies are" if measure.is_accuracy else f"Values of the {measure.title} are"
    if seeds > 1:
        text += (
            f"{named} means over {seeds} seeds, unless said otherwise; below them, from the "
            "lowest to the highest seed. "
        )
    if results.runs[0].endpoint == "late-mean":
        text += f"A run's value is its mean over the last {_late(results)}. "
    else:
        text += f"A run's value is the {measure.title} on test images {results.when}. "
    chosen = {run.result.get("best_chosen_by") for run in results.finished if run.result}
    text += (
        "The best round, in small, is the best on validation images."
        if chosen == {f"validation_{measure.name}"}
        else "The best round, in small, is chosen with the test images, so it flatters."
    )
    if any(0 in cell.best_rounds for cell in results.cells.values()):
        text += " Untrained is round 0, the network before any training: no round was better."
    images = circumstances.test_images(results.runs)
    if images and measure.is_accuracy:
        doubt = 196 * math.sqrt(0.25 / images)
        text += (
            " Besides the seed there is the choice of test images: as a statement about new "
            f"images, an accuracy measured on {images:,} is uncertain by up to {doubt:.1f} points "
            "either way (95%)."
        )
    return text
