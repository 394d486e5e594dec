"""What comparisons come to: each contender with one reference, seed by seed, in one word."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from experiments.report.labels import Group
from experiments.report.measure import Measure
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST
from fl.config.components import spelt_out
from fl.config.parsing import Value
from fl.config.parts.contrasts import AFTER, MARGIN, chosen

Key = TypeVar("Key", bound=Hashable)

if TYPE_CHECKING:
    from experiments.statistics.verdicts import Judgement

BASELINE = "BatchNorm"
"""The contender that the others are compared with, where it takes part; else the first one is."""


def missing() -> str | None:
    """Say what to install where there can't be verdicts; None where there can."""
    if find_spec("scipy"):
        return None
    return 'No verdicts and no test of collapse: install fednf with its extra "stats".'


def margin(results: Results) -> float | None:
    """Return the smallest difference that matters; None where nobody said one."""
    said = results.contrasts.get("margin")
    if results.measure.fraction:
        return (MARGIN if said is None else said) / 100
    return said


def reference(results: Results, condition: Group) -> Cell | None:
    """Return the cell that the others of a condition are compared with; None without others."""
    cells = sorted(results.column(condition), key=lambda cell: cell.series)
    if len(cells) < 2:
        return None
    if declared := results.contrasts.get("reference"):
        return next((cell for cell in cells if _has(cell, declared)), None)
    return next((cell for cell in cells if str(cell.series) == BASELINE), cells[0])


def confirmatory(results: Results, cell: Cell) -> bool:
    """Say whether the study declared, before its runs, that it asks about a cell.

    Everything else is exploratory.
    """
    family = results.contrasts.get("family")
    if results.contrasts.get(AFTER):
        return False
    return any(_has(cell, knobs) for knobs in family) if family else bool(results.contrasts)


def _has(cell: Cell, knobs: Mapping[str, Value]) -> bool:
    return all(chosen({**run.knobs, **spelt_out(run.knobs)}, knobs) for run in cell.runs)


@lru_cache(maxsize=64)
def _judged(contrasts: tuple[tuple[float, ...], ...], margin: float | None) -> "list[Judgement]":
    from experiments.statistics.verdicts import judge

    return list(judge(dict(enumerate(contrasts)), margin).values())


def judge_family(
    contrasts: Mapping[Key, tuple[float, ...]], margin: float | None
) -> "dict[Key, Judgement]":
    """Judge differences that are one family, by what they are of."""
    return dict(zip(contrasts, _judged(tuple(contrasts.values()), margin), strict=True))


def judged(results: Results, condition: Group) -> "dict[Group, Judgement]":
    """Judge the contenders of a condition; none where SciPy is missing.

    What a study declared is one family over all conditions; the others of a condition are one, too.

    Returns:
        Judgements by contender, in order; differences are such that more is better.
    """
    if missing():
        return {}
    here, family = _contrasts(results, condition), {}
    for where in results.conditions if results.contrasts else ():
        family |= {
            key: d for key, d in _contrasts(results, where).items()
            if confirmatory(results, results.cells[key])
        }  # fmt: skip
    rest = {key: d for key, d in here.items() if key not in family}
    found = judge_family(family, margin(results)) | judge_family(rest, margin(results))
    return {series: found[series, condition] for series, _ in here}


def _contrasts(results: Results, condition: Group) -> dict[tuple[Group, Group], tuple[float, ...]]:
    """Return the differences from the reference under a condition, by cell; more is better."""
    other, good = reference(results, condition), results.measure.goodness
    found = {}
    for cell in sorted(results.column(condition), key=lambda cell: cell.series):
        gain = cell.gain_over(other) if other and cell is not other else None
        if gain:
            found[cell.series, condition] = tuple(good(value) for value in gain.values)
    return found


def interval(differences: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the 95 % t interval of a mean difference; None with fewer than five or no SciPy."""
    if len(differences) < FEWEST or missing():
        return None
    from experiments.statistics.paired import t_interval

    return t_interval(differences)


def too_few(results: Results) -> str:
    """Say that there are too few seeds for verdicts; empty where nothing compares, or some are."""
    found = [one for c in results.conditions for one in judged(results, c).values()]
    if not found or (most := max(one.n for one in found)) >= FEWEST:
        return ""
    return f"UNDECIDED. No verdicts: with {FEWEST} seeds or more there are; here are {most}."


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
    sizes = {len(judged(results, condition)) for condition in results.conditions} - {0}
    if not sizes:
        return None
    least, family = margin(results), f"the {max(sizes)} comparisons of a condition"
    if results.contrasts:
        family = "those that the study declared, or over the others of a condition"
    text = (
        "*Verdicts* compare seed by seed with one reference, which has the same deal and clients. "
        f"BETTER: the sign-flip test, adjusted by Holm over {family}, is below 0.05"
    )
    if least:
        text += (
            ", and the mean difference is no smaller than the margin of "
            f"{results.measure.distance(least)} (else BETTER-SMALL). "
            "EQUIVALENT: two one-sided tests put it within ± the margin. UNDECIDED: neither, with "
            "the seeds that are still needed for power 0.8"
        )
    return text + (". Brackets hold the 95 % t interval. Fewer than 5 seeds get no verdict.")


def declared(results: Results) -> str:
    """Say what of the comparisons the study declared, and when."""
    if not results.contrasts:
        return "No comparison was declared before the runs: all are exploratory."
    if late := results.contrasts.get(AFTER):
        return f"Comparisons were declared when {late} runs were done, so all are exploratory."
    if not (cells := [cell for cell in results.cells.values() if confirmatory(results, cell)]):
        return "No run of the declared comparisons is finished."
    asked = {cell.series for cell in cells if cell.series not in _references(results)}
    text = f"Declared, and so confirmatory: {', '.join(map(str, sorted(asked)))} against "
    text += f"{' or '.join(dict.fromkeys(map(str, _references(results)))) or 'nothing'}"
    if size := margin(results):
        text += f", margin {results.measure.distance(size)}"
    text += f", {results.measure.title} {results.when}. "
    return f"{text}All other comparisons are exploratory."


def _references(results: Results) -> list[Group]:
    found = (reference(results, condition) for condition in results.conditions)
    return [cell.series for cell in found if cell]
