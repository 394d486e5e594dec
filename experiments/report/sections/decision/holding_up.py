"""Does it hold up? What skew of the clients costs each network, and what runs differ by."""

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from experiments.report import labels, tables, verdicts
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST

if TYPE_CHECKING:
    from experiments.statistics.verdicts import Judgement

_WORDS = {"BETTER": "HOLDS UP BETTER", "WORSE": "HOLDS UP WORSE"}
_HOW = (
    "*Share kept*: what is left under skew of the lead over guessing that even clients give, with "
    "a bootstrap over seeds. *Log odds*: by how much more of its odds a network keeps than {}: "
    "[logit Y − logit Y_ref] under skew less the same with even clients, seed by seed, with the "
    "95 % t interval; above 0 it holds up better. Tests are sign flips, adjusted by Holm over the "
    "networks of a pair of conditions."
)
_DRAWS = ("deal", "first weights", "sampling", "order")
"""What has seeds of its own, in the order of `labels.seeds`."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Held:
    """What skew leaves of one network."""

    cell: Cell
    """Under skew."""
    kept: float
    """The share of its lead over guessing."""
    interval: Ends | None
    """Of that share; None with fewer than five seeds."""
    interaction: "Judgement | None"
    """Of log odds against the reference; None for the reference itself."""


def pairs(results: Results) -> list[tuple[Group, Group]]:
    """Return conditions with even clients, and those that differ from them in the skew alone."""
    found = [c for c in results.conditions if results.column(c)]
    even = [c for c in found if results.column(c)[0].runs[0].knobs["partition.kind"] == "iid"]
    return [(a, b) for a in even for b in found if b.differences(a) == ["partition"]]


def held(results: Results) -> dict[tuple[Group, Group], list[Held]]:
    """Return what skew leaves of each network, by the conditions that are compared.

    It is of accuracies that have odds and guessing, and of seeds that all cells have.
    """
    if not results.measure.is_accuracy or verdicts.missing():
        return {}
    shares: dict[tuple[Group, Group], dict[Group, tuple[Cell, float, Ends | None]]] = {}
    contrasts: dict[tuple, tuple[float, ...]] = {}
    for pair in pairs(results):
        other = verdicts.reference(results, pair[1])
        for series in results.series:
            cells = [results.cells[series, c] for c in pair if (series, c) in results.cells]
            if len(cells) < 2:
                continue
            even, skewed = map(_by_block, cells)
            if (share := _share(even, skewed, cells[1])) is None:
                continue
            shares.setdefault(pair, {})[series] = (cells[1], share[0], share[1])
            if other and series != other.series:
                contrasts[pair, series] = _log_odds(results, pair, series, other.series)
    judged: dict[tuple, Judgement] = {}
    for pair in shares:
        one = {key: d for key, d in contrasts.items() if d and key[0] == pair}
        judged |= verdicts.judge_family(one, None, len(one) + _to_come(results, pair))
    return {
        pair: [
            Held(cell, kept, interval, judged.get((pair, series)))
            for series, (cell, kept, interval) in found.items()
        ]
        for pair, found in shares.items()
    }


def _to_come(results: Results, pair: tuple[Group, Group]) -> int:
    """Return how many networks have runs under both conditions that are begun, and none done."""
    begun = {(run.series, run.condition) for run in results.runs}
    both = [s for s in results.series if all((s, c) in begun for c in pair)]
    return sum(any((s, c) not in results.cells for c in pair) for s in both)


def _by_block(cell: Cell) -> dict[tuple[int, ...], float]:
    return {run.block: run.outcome for run in cell.runs}


def _share(even: dict, skewed: dict, cell: Cell) -> tuple[float, Ends | None] | None:
    """Return the retained share and its interval; None where nothing was learned to lose."""
    blocks, chance = [b for b in even if b in skewed], cell.runs[0].chance
    if chance is None or not blocks:
        return None
    from experiments.statistics.interaction import retained, retained_interval

    before, after = ([there[b] for b in blocks] for there in (even, skewed))
    if sum(before) / len(before) - chance < 0.02:
        return None
    enough = len(blocks) >= FEWEST
    interval = retained_interval(after, before, chance) if enough else None
    return retained(after, before, chance), interval


def _log_odds(
    results: Results, pair: tuple[Group, Group], series: Group, other: Group
) -> tuple[float, ...]:
    """Return the interaction by block; nothing where a cell lacks, or has no finite odds."""
    keys = [(s, where) for where in reversed(pair) for s in (series, other)]
    if not all(key in results.cells for key in keys):
        return ()
    found = [_by_block(results.cells[key]) for key in keys]
    blocks = [b for b in found[0] if all(b in one for one in found)]
    values = [[one[b] for b in blocks] for one in found]
    if not blocks or any(not 0 < y < 1 for one in values for y in one):
        return ()
    from experiments.statistics.interaction import interaction

    return tuple(float(d) for d in interaction(*values))


def shares(results: Results) -> dict[str, float]:
    """Return the share of each draw in the variance that recipe and condition leave.

    Nothing where no two draws have seeds that vary on their own.
    """
    rows = [(labels.seeds(run.knobs), run) for run in results.finished]
    columns = list(zip(*(seeds for seeds, _ in rows), strict=True))
    alone = []  # draws that do not go with an earlier one
    for name, column in zip(_DRAWS, columns, strict=True):
        others = [columns[_DRAWS.index(other)] for other in alone]
        if len(set(column)) > 1 and not any(_together(column, other) for other in others):
            alone.append(name)
    outcomes = {run.outcome for _, run in rows}
    few = len(rows) < 2 * FEWEST or len(outcomes) < 2
    if len(alone) < 2 or few or verdicts.missing():
        return {}
    try:
        from experiments.statistics.variance import variance_shares

        told = [
            {"y": run.outcome, "series": str(run.series), "condition": str(run.condition)}
            | {name: seeds[_DRAWS.index(name)] for name in alone}
            for seeds, run in rows
        ]
        fixed = [key for key in ("series", "condition") if len({row[key] for row in told}) > 1]
        return variance_shares(told, "y", fixed, alone)
    except ModuleNotFoundError:
        return {}


def _together(first: tuple, second: tuple) -> bool:
    """Say whether two draws' seeds determine each other, so that they can't be told apart."""
    both = len(set(zip(first, second, strict=True)))
    return both == len(set(first)) == len(set(second))


def power(results: Results) -> str:
    """Say which difference the study could find; empty where there are no verdicts."""
    judged = [
        one for c in results.conditions for one in verdicts.judged(results, c).values() if one.sd
    ]
    if not judged:
        return ""
    from experiments.statistics.power import least_detectable

    able = [one for one in judged if 2 / 2**one.n < one.alpha]  # the least p of a sign-flip test
    if not able:
        n = max(one.n for one in judged)
        return (
            f"**Power:** none. A sign-flip test of {n} seeds has p ≥ {2 / 2**n:.2g}, so no "
            "comparison can be BETTER or WORSE; take more seeds."
        )
    sizes = [one.sd * least_detectable(one.n, one.alpha) for one in able]
    found = {"middle": median(sizes), "worst": max(sizes)}
    least, most = (results.measure.distance(found[key]) for key in ("middle", "worst"))
    n = sorted({one.n for one in able})
    seeds = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return (
        f"**Power:** with {seeds} seeds and the spread seen here, half of the comparisons find a "
        f"difference of {least} with probability 0.8, and all of them one of {most}."
    )


def _why_not(results: Results) -> str:
    """Say why nothing is told of what holds up."""
    if verdicts.missing():
        return "SciPy is missing"
    if not results.measure.is_accuracy:
        return "only a share of right answers has odds and a value of guessing"
    if not pairs(results):
        return "no runs with even clients beside skewed ones to compare"
    return "no network is known to learn with even clients, or what guessing gives is not known"


def section(results: Results) -> Html | None:
    """Make the section on what holds up; a line for each thing that the runs can't tell."""
    if len(results.series) < 2:
        return None
    found, lines = held(results), [power(results)]
    if not found:
        lines.append(f"**Holding up:** {_why_not(results)}.")
    if variance := shares(results):
        listed = ", ".join(f"{name} {share:.0%}" for name, share in variance.items())
        lines.append(
            f"**Variance between runs** that network and condition leave: {listed} (mixed model)."
        )
    elif any(set(labels.seeds(run.knobs)) != {run.seed} for run in results.finished):
        lines.append(
            "**Variance by draw:** not told; it takes ten runs in which two of the seeds vary on "
            "their own, and statsmodels."
        )
    others = dict.fromkeys(
        str(other.series) for _, c in found if (other := verdicts.reference(results, c))
    )
    how = element("p", prose(_HOW.format(" or ".join(others) or "its reference")))
    return element(
        "section",
        element("h2", "Does it hold up?"),
        _table(results, found) if found else None,
        element("details", element("summary", "How that is reckoned"), how) if found else None,
        [element("p", prose(line)) for line in lines if line],
    )


def _table(results: Results, found: dict[tuple[Group, Group], list[Held]]) -> Html:
    head = [element("th", "", scope="col")]
    head += [element("th", t, scope="col", class_="number") for t in ("share kept", "log odds")]
    head.append(element("th", "verdict", scope="col"))
    bodies = [
        tables.part(f"{before} → {after}", len(head), [_row(one, results) for one in rows])
        for (before, after), rows in found.items()
    ]
    return table([head], bodies, "holding-up")


def _row(one: Held, results: Results) -> list[Html]:
    low, high = one.interval or (math.nan, math.nan)
    ends = element("small", f"{low:.0%} to {high:.0%}") if one.interval else None
    cells = [element("td", f"{one.kept:.0%}", ends, class_="number")]
    judged = one.interaction
    if judged is None:
        cells += [element("td", "–", class_="number muted"), element("td", "", class_="muted")]
    else:
        odds = f"{judged.mean:+.2f}".replace("-", "−")
        ends = "{:+.2f} to {:+.2f}".format(*judged.interval) if judged.interval else ""
        small = element("small", ends.replace("-", "−")) if ends else None
        cells.append(element("td", odds, small, class_="number"))
        word = _WORDS.get(str(judged.verdict), str(judged.verdict or ""))
        cells.append(element("td", f"{word}, n = {judged.n}" if word else f"n = {judged.n}"))
    return [tables.contender(one.cell.series, results), *cells]
