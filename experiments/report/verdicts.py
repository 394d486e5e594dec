"""What comparisons come to: each contender with one reference, seed by seed, in one word."""

from collections import Counter
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from experiments.report.labels import Group
from experiments.report.measure import Measure
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST

if TYPE_CHECKING:
    from experiments.statistics.verdicts import Judgement

BASELINE = "BatchNorm"
"""The contender that the others are compared with, where it takes part; else the first one is."""

MARGIN = 0.015
"""The smallest difference of a metric in per cent that matters: 1.5 points."""

_FEW = 3


def missing() -> str | None:
    """Say what to install where there can't be verdicts; None where there can."""
    if find_spec("scipy"):
        return None
    return 'No verdicts and no test of collapse: install fednf with its extra "stats".'


def reference(results: Results, condition: Group) -> Cell | None:
    """Return the cell that the others of a condition are compared with; None without others."""
    cells = sorted(results.column(condition), key=lambda cell: cell.series)
    if len(cells) < 2:
        return None
    return next((cell for cell in cells if str(cell.series) == BASELINE), cells[0])


@lru_cache(maxsize=64)
def _judged(contrasts: tuple[tuple[float, ...], ...], margin: float | None) -> "list[Judgement]":
    from experiments.statistics.verdicts import judge

    return list(judge(dict(enumerate(contrasts)), margin).values())


def judged(results: Results, condition: Group) -> "dict[Group, Judgement]":
    """Judge the contenders of a condition, which are one family; none where SciPy is missing.

    Returns:
        Judgements by contender, in order; differences are such that more is better.
    """
    other = reference(results, condition)
    if other is None or missing():
        return {}
    good = results.measure.goodness
    found = {}
    for cell in sorted(results.column(condition), key=lambda cell: cell.series):
        gain = cell.gain_over(other) if cell is not other else None
        if gain:
            found[cell.series] = tuple(good(value) for value in gain.values)
    margin = MARGIN if results.measure.fraction else None
    return dict(zip(found, _judged(tuple(found.values()), margin), strict=True))


def interval(differences: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the 95 % t interval of a mean difference; None with fewer than five or no SciPy."""
    if len(differences) < FEWEST or missing():
        return None
    from experiments.statistics.paired import t_interval

    return t_interval(differences)


def headline(results: Results) -> str:
    """Say in one sentence what all comparisons come to."""
    places: dict[tuple[str, str], list[str]] = {}
    judgements = [(c, judged(results, c)) for c in results.conditions]
    judgements = [(condition, found) for condition, found in judgements if found]
    everything = [one for _, found in judgements for one in found.values()]
    if not everything:
        return ""
    for condition, found in judgements:
        for series, one in found.items():
            if one.verdict not in (None, "UNDECIDED"):
                places.setdefault((one.verdict, str(series)), []).append(f"“{condition}”")
    undecided = len(everything) - sum(map(len, places.values()))
    if not places and (most := max(one.n for one in everything)) < FEWEST:
        return f"No verdicts: with {FEWEST} seeds or more there are; here are {most}."
    alike: dict[tuple[str, str], list[str]] = {}
    for (verdict, name), where in places.items():
        alike.setdefault((verdict, _where(where, len(judgements))), []).append(name)
    parts = [f"{verdict}{where}: {', '.join(names)}" for (verdict, where), names in alike.items()]
    if undecided:
        parts.append(f"UNDECIDED: {undecided} of {len(everything)} comparisons")
    others = [reference(results, condition) for condition, _ in judgements]
    names = dict.fromkeys(str(other.series) for other in others if other)
    return f"Against {' or '.join(names)}, {'; '.join(parts)}."


def sentence(results: Results, condition: Group) -> str:
    """Say what the comparisons of a condition come to: verdict, mean, interval and n of each."""
    told = [
        f"{series} {one.verdict} ({numbers(one, results.measure)})"
        for series, one in judged(results, condition).items()
        if one.verdict
    ]
    other = reference(results, condition)
    return f"Against {other.series}: {'; '.join(told)}." if told and other else ""


def numbers(one: "Judgement", measure: Measure) -> str:
    """Write a judgement's mean difference, its interval, n, and how many seeds are missing."""
    sign = 1 if measure.larger else -1
    text = measure.change(sign * one.mean)
    if one.interval:
        low, high = sorted(sign * end for end in one.interval)
        text += f" [{measure.change(low)}, {measure.change(high)}]"
    text += f", n = {one.n}"
    return text + (f", {one.more} more needed" if one.more else "")


def method(results: Results) -> str | None:
    """Say how verdicts are made; None where there are none."""
    sizes = Counter(len(judged(results, condition)) for condition in results.conditions)
    sizes.pop(0, None)
    if not sizes:
        return None
    margin = f" of {results.measure.distance(MARGIN)}" if results.measure.fraction else ""
    text = (
        "*Verdicts* compare seed by seed with one reference, which has the same deal and clients. "
        f"BETTER: the sign-flip test, adjusted by Holm over the {max(sizes)} comparisons of a "
        "condition, is below 0.05"
    )
    if margin:
        text += (
            f", and the mean difference is no smaller than the margin{margin} (else BETTER-SMALL). "
            "EQUIVALENT: two one-sided tests put it within ± the margin. UNDECIDED: neither, with "
            "the seeds that are still needed for power 0.8"
        )
    return text + (
        ". Brackets hold the 95 % t interval. Fewer than 5 seeds get no verdict. What was not "
        "declared before the runs is exploratory."
    )


def _where(conditions: list[str], known: int) -> str:
    """Name conditions; nothing where they are all, and their number where they are many."""
    if len(conditions) == known:
        return "" if known == 1 else " everywhere"
    if len(conditions) > _FEW:
        return f" under {len(conditions)} of {known} conditions"
    *first, last = conditions
    return f" under {', '.join(first)} and {last}" if first else f" under {last}"
