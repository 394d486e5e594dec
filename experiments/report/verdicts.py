"""What comparisons come to: each contender with one reference, seed by seed, in one word."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from experiments.report import labels
from experiments.report.labels import Group
from experiments.report.measure import Measure
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST
from fl.config.components import spelt_out
from fl.config.parsing import Value
from fl.config.parts.contrasts import AFTER, COMPARED, MARGIN, chosen
from fl.simulation.study import Study

Key = TypeVar("Key", bound=Hashable)
Knobs = Sequence[Mapping[str, Value]]
"""Those of each run of a cell."""

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
    cells = {cell.series: _knobs(cell) for cell in results.column(condition)}
    other = _reference(cells, results.contrasts.get("reference"))
    return results.cells[other, condition] if other else None


def _reference(cells: Mapping[Group, Knobs], declared: Mapping[str, Value] | None) -> Group | None:
    """Return which contender of a condition the others are compared with, by their runs' knobs."""
    series = sorted(cells)
    if len(series) < 2:
        return None
    if declared:
        return next((one for one in series if _has(cells[one], declared)), None)
    return next((one for one in series if str(one) == BASELINE), series[0])


def confirmatory(results: Results, cell: Cell) -> bool:
    """Say whether the study declared, before its runs, that it asks about a cell.

    Everything else is exploratory.
    """
    return _declared(results, _knobs(cell))


def _declared(results: Results, cell: Knobs) -> bool:
    if results.contrasts.get(AFTER):
        return False
    return bool(results.contrasts) and _asked(cell, results.contrasts.get("family"))


def _asked(cell: Knobs, family: Iterable[Mapping[str, Value]] | None) -> bool:
    """Say whether a cell is of a family; where none was named, all are."""
    return any(_has(cell, knobs) for knobs in family) if family else True


def has(cell: Cell, knobs: Mapping[str, Value]) -> bool:
    """Say whether all runs of a cell have some knobs at some values."""
    return _has(_knobs(cell), knobs)


def _knobs(cell: Cell) -> Knobs:
    return [run.knobs for run in cell.runs]


def _has(cell: Knobs, knobs: Mapping[str, Value]) -> bool:
    return all(chosen({**flat, **spelt_out(flat)}, knobs) for flat in cell)


def comparisons(study: Study) -> int:
    """Return how many comparisons a study declares, those of runs that are still to come, too.

    They are the cells of its family, but for the reference of each condition.
    """
    if not study.contrasts:
        return 0
    flats = [experiment.to_flat() for experiment in study.experiments]
    conditions: dict[Group, dict[Group, list[Mapping[str, Value]]]] = {}
    for (series, condition), flat in zip(
        labels.group(flats, study.contrasts.reference), flats, strict=True
    ):
        conditions.setdefault(condition, {}).setdefault(series, []).append(flat)
    found = 0
    for cells in conditions.values():
        if other := _reference(cells, study.contrasts.reference):
            rest = [cell for series, cell in cells.items() if series != other]
            found += sum(_asked(cell, study.contrasts.family) for cell in rest)
    return found


@lru_cache(maxsize=64)
def _judged(
    contrasts: tuple[tuple[float, ...], ...], margin: float | None, size: int
) -> "list[Judgement]":
    from experiments.statistics.verdicts import judge

    return list(judge(dict(enumerate(contrasts)), margin, family=size).values())


def judge_family(
    contrasts: Mapping[Key, tuple[float, ...]], margin: float | None, size: int = 0
) -> "dict[Key, Judgement]":
    """Judge differences that are one family, by what they are of.

    Args:
        contrasts: the differences.
        margin: the smallest one that matters.
        size: of the family, where some of it is still to come.
    """
    values = tuple(contrasts.values())
    judged = _judged(values, margin, max(size, len(values)))
    return dict(zip(contrasts, judged, strict=True))


def judged(results: Results, condition: Group) -> "dict[Group, Judgement]":
    """Judge the contenders of a condition; none where SciPy is missing.

    What a study declared is one family over all conditions; the others of a condition are one, too.
    What is still to come counts, so that no verdict is easier to have before a study is done: all
    comparisons that were declared, and contenders whose runs are begun.

    Returns:
        Judgements by contender, in order; differences are such that more is better.
    """
    if missing():
        return {}
    here, family = _contrasts(results, condition), _family(results)
    rest = {key: d for key, d in here.items() if key not in family}
    found = judge_family(family, margin(results), int(results.contrasts.get(COMPARED, 0)))
    found |= judge_family(rest, margin(results), _explored(results, condition))
    return {series: found[series, condition] for series, _ in here}


def _family(results: Results) -> dict[tuple[Group, Group], tuple[float, ...]]:
    """Return the differences that the study declared, over all conditions."""
    return {
        key: d
        for where in (results.conditions if results.contrasts else ())
        for key, d in _contrasts(results, where).items()
        if confirmatory(results, results.cells[key])
    }


def _explored(results: Results, condition: Group) -> int:
    """Return how many contenders of a condition, done or begun, have no declared comparison."""
    begun: dict[Group, list[Mapping[str, Value]]] = {}
    for run in results.runs:
        if run.condition == condition:
            begun.setdefault(run.series, []).append(run.knobs)
    other = reference(results, condition)
    rest = [cell for series, cell in begun.items() if other and series != other.series]
    return sum(not _declared(results, cell) for cell in rest)


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
    return f"{text}{_to_come(results)}All other comparisons are exploratory."


def _to_come(results: Results) -> str:
    """Say how many declared comparisons have no runs yet; empty where all have."""
    asked, done = int(results.contrasts.get(COMPARED, 0)), len(_family(results))
    if done >= asked:
        return ""
    return f"{done} of {asked} have runs so far; Holm's adjustment counts them all. "


def _references(results: Results) -> list[Group]:
    found = (reference(results, condition) for condition in results.conditions)
    return [cell.series for cell in found if cell]
