"""The tables of the page: who reached what, what a change costs, and what it took."""

from collections import Counter

from experiments.report import verdicts, words
from experiments.report.drawing.figures import style
from experiments.report.labels import Group
from experiments.report.markup import Html, element, table
from experiments.report.measure import Measure, Spread
from experiments.report.results import Cell, Results


def verdict(results: Results) -> Html:
    """Make the table of conditions and contenders: last and best round, and guessing."""
    head = [element("th", "", scope="col")]
    head += [contender(series, results, scope="col") for series in results.series]
    head += [element("th", "guessing", scope="col", class_="number muted")]
    rows = []
    for condition in (c for c in results.conditions if results.column(c)):
        chance = results.column(condition)[0].runs[0].chance
        row = [element("th", str(condition), scope="row")]
        row += [_reached(results, series, condition) for series in results.series]
        rows.append([*row, element("td", results.measure.value(chance), class_="number muted")])
    return table([head], [rows], "outcome", class_="verdict")


def differences(results: Results) -> Html | None:
    """Make the table of what a change of condition does, seed by seed; None where none compares."""
    found = [
        (f"{before} → {after}", words.gains_between(results, before, after))
        for before, after in results.changes()
    ]
    rows = [_gains(results, name, gains) for name, gains in found if gains]
    head = [element("th", "from → to", scope="col")]
    head += [contender(series, results, scope="col") for series in results.series]
    return table([head], [rows], "changes", class_="verdict") if rows else None


def cost(results: Results) -> Html:
    """Make the table of what a run took, as the mean over the seeds of a cell."""
    figures = ("training", "images/s", "sent by clients", "sent to clients", "refused replies")
    titles = [element("th", words.series_noun(results), scope="col")]
    titles += [element("th", figure, scope="col", class_="number") for figure in figures]
    bodies = []
    for condition in results.conditions:
        cells = sorted(results.column(condition), key=lambda cell: cell.series)
        if cells:
            bodies.append(part(str(condition), len(titles), [_cost(c, results) for c in cells]))
    return table([titles], bodies, "cost")


def part(title: str, columns: int, rows: list[list[Html]]) -> list[list[Html]]:
    """Put a heading over some rows of a table."""
    return [[element("th", title, colspan=str(columns), scope="rowgroup", class_="part")], *rows]


def unfinished(results: Results) -> Html:
    """Make the table of runs that have no result yet."""
    head = [element("th", text, scope="col") for text in ("run", "condition", "seed", "progress")]
    rows = [
        [
            element("th", str(run.series), scope="row"),
            element("td", str(run.condition)),
            element("td", run.seed),
            element("td", f"{run.rounds_done} of {run.knobs['rounds']} rounds"),
        ]
        for run in results.unfinished
    ]
    return table([head], [rows], "unfinished")


def refusals(results: Results) -> Html | None:
    """List why replies were refused, the most frequent reason first; None where none was."""
    reasons = Counter(
        str(refusal["reason"])
        for run in results.finished
        for line in run.rounds
        for refusal in line["refused"]
    )
    if not reasons:
        return None
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return element("ul", [element("li", f"{reason} ({number:,} ×)") for reason, number in ordered])


def pairs(rows: list[tuple[str, str]]) -> Html:
    """List names and values, in two columns where there are many and the page is wide."""
    items = [element("div", element("dt", name), element("dd", value)) for name, value in rows]
    return element("dl", items, class_="pairs many" if len(rows) > 8 else "pairs")


def contender(series: Group, results: Results, scope: str = "row") -> Html:
    """Make the head of a contender's row or column: its colour and its name."""
    color, _ = style(series, results.series)
    swatch = element("span", "", class_="swatch", style=f"background:{color}")
    kind = {"class_": "number"} if scope == "col" else {}
    return element("th", swatch, str(series), scope=scope, **kind)


def _reached(results: Results, series: Group, condition: Group) -> Html:
    cell = results.cells.get((series, condition))
    if cell is None:
        return element("td", "–", class_="number muted")
    measure = cell.measure
    best = f"best {measure.value(cell.best.mean)}{_untrained(cell)}"
    remarks = [measure.extent(cell.outcome.values), _seeds(cell, results), best]
    one = verdicts.judged(results, condition).get(series)
    leads = one is not None and one.verdict == "BETTER"
    value = element("strong" if leads else "span", measure.value(cell.outcome.mean))
    small = [element("small", text) for text in remarks if text]
    if one and one.verdict:
        mark = (
            "" if verdicts.confirmatory(results, cell) or not results.contrasts else "exploratory: "
        )
        small.append(element("small", f"{mark}{one}", class_="verdict"))
    return element("td", value, small, class_="number leads" if leads else "number")


def _untrained(cell: Cell) -> str:
    """Say that the best round was round 0, which is the network before any training."""
    untrained = cell.best_rounds.count(0)
    if not untrained:
        return ""
    seeds = len(cell.best_rounds)
    return ", untrained" if untrained == seeds else f", untrained at {untrained} of {seeds} seeds"


def _gains(results: Results, name: str, gains: words.Gains) -> list[Html]:
    found = {cell.series: gain for cell, gain in gains}
    return [
        element("th", name, scope="row"),
        *(_change(found.get(series), results.measure) for series in results.series),
    ]


def _seeds(cell: Cell, results: Results) -> str:
    """Say how many seeds there are, where they are fewer than elsewhere."""
    most = max(other.outcome.n for other in results.cells.values())
    return words.count(cell.outcome.n, "seed") if cell.outcome.n < most else ""


def _change(gain: Spread | None, measure: Measure) -> Html:
    if gain is None:
        return element("td", "–", class_="number muted")
    low, high = verdicts.interval(gain.values) or (gain.low, gain.high)
    ends = f"{measure.change(low)} to {measure.change(high)}"
    remark = ends if gain.n > 1 else "1 seed"
    value = element("span", measure.change(gain.mean))
    return element("td", value, element("small", remark), class_="number")


def _cost(cell: Cell, results: Results) -> list[Html]:
    runs = cell.outcome.n
    figures = (
        f"{cell.total('train_seconds') / runs:,.1f} s",
        f"{cell.images_per_second:,.0f}",
        _megabytes(cell.total("bytes_up") / runs),
        _megabytes(cell.total("bytes_down") / runs),
        f"{cell.total('refused') / runs:g}",
    )
    return [contender(cell.series, results), *(element("td", f, class_="number") for f in figures)]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e6:.2g} MB"
