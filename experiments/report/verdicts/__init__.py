"""What comparisons come to: each contender with one reference, seed by seed, in one word."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from experiments.report import labels
from experiments.report.labels import Group
from experiments.report.results import Cell, Results
from experiments.statistics.endpoints import FEWEST
from fl.config.components import spelt_out
from fl.config.parsing import Value
from fl.config.parts.contrasts import AFTER, COMPARED, MARGIN, chosen
from fl.simulation.study import Study

Key = tuple[Group, Group]
"""Of a cell: contender and condition."""
Block = tuple[int, ...]
ByBlock = dict[Key, dict[Block, float]]
"""Differences of cells from their references, by block."""
Name = TypeVar("Name", bound=Hashable)
Knobs = Sequence[Mapping[str, Value]]
"""Those of each run of a cell."""

if TYPE_CHECKING:
    from experiments.statistics.racing import Race
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


def compared(study: Study) -> dict[Key, Group]:
    """Return the cells that a study declares to compare, each with its reference's contender.

    They are those of its family, but for the references.
    """
    if not study.contrasts:
        return {}
    flats = [experiment.to_flat() for experiment in study.experiments]
    conditions: dict[Group, dict[Group, list[Mapping[str, Value]]]] = {}
    for (series, condition), flat in zip(
        labels.group(flats, study.contrasts.reference), flats, strict=True
    ):
        conditions.setdefault(condition, {}).setdefault(series, []).append(flat)
    return {
        (series, condition): other
        for condition, cells in conditions.items()
        if (other := _reference(cells, study.contrasts.reference))
        for series, cell in cells.items()
        if series != other and _asked(cell, study.contrasts.family)
    }


@lru_cache(maxsize=64)
def _judged(
    contrasts: tuple[tuple[Hashable, tuple[float, ...]], ...], margin: float | None, size: int
) -> "Mapping[Hashable, Judgement]":
    from experiments.statistics.verdicts import judge

    return judge(dict(contrasts), margin, family=size)


def judge_family(
    contrasts: Mapping[Name, tuple[float, ...]], margin: float | None, size: int = 0
) -> "dict[Name, Judgement]":
    """Judge differences that are one family, by what they are of.

    Args:
        contrasts: the differences.
        margin: the smallest one that matters.
        size: of the family, where some of it is still to come.
    """
    found = _judged(tuple(contrasts.items()), margin, max(size, len(contrasts)))
    return {name: found[name] for name in contrasts}


@lru_cache(maxsize=8)
def _raced(
    contrasts: tuple[tuple[Key, tuple[tuple[Block, float], ...]], ...],
    blocks: tuple[Block, ...],
    margin: float | None,
    looks: tuple[int, ...],
    size: int,
) -> "Race[Key]":
    from experiments.statistics.racing import race

    return race({key: dict(d) for key, d in contrasts}, blocks, margin, looks, family=size)


def race(
    contrasts: ByBlock,
    blocks: Iterable[Sequence[int]],
    margin: float | None,
    looks: tuple[int, ...],
    size: int,
) -> "Race[Key]":
    """Replay the looks of a study, as `experiments.statistics.racing.race` does."""
    told = tuple((key, tuple(d.items())) for key, d in contrasts.items())
    return _raced(told, tuple(map(tuple, blocks)), margin, looks, size)


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
    here, declared = _contrasts(results, condition), family(results)
    rest = {key: tuple(d.values()) for key, d in here.items() if key not in declared}
    found = _judge_declared(results, declared)
    found |= judge_family(rest, margin(results), _explored(results, condition))
    return {series: found[series, condition] for series, _ in here}


def _judge_declared(results: Results, declared: ByBlock) -> "dict[Key, Judgement]":
    """Judge what a study declared: at its looks alone, if it has some."""
    values = {key: tuple(d.values()) for key, d in declared.items()}
    size = int(results.contrasts.get(COMPARED, 0))
    if not (asked := looks(results)):
        return judge_family(values, margin(results), size)
    from experiments.statistics.verdicts import unjudged

    cells = {tuple(cell) for cell in results.contrasts["cells"]}  # no others that lie there
    named = {key: d for key, d in declared.items() if tuple(map(str, key)) in cells}
    if len(named) < len(cells):
        return {key: unjudged(d) for key, d in values.items()}
    found = race(named, results.contrasts["blocks"], margin(results), asked, size).judged
    return {key: found.get(key) or unjudged(d) for key, d in values.items()}


def looks(results: Results) -> tuple[int, ...]:
    """Return after how many seeds declared comparisons are judged; empty: once, at the end."""
    late = results.contrasts.get(AFTER) or "blocks" not in results.contrasts
    return () if late else tuple(results.contrasts.get("looks", ()))


def family(results: Results) -> ByBlock:
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


def _contrasts(results: Results, condition: Group) -> ByBlock:
    """Return the differences from the reference under a condition, by cell; more is better."""
    other, good, found = reference(results, condition), results.measure.goodness, {}
    for cell in sorted(results.column(condition), key=lambda cell: cell.series):
        if other and cell is not other and (gains := cell.differences(other)):
            found[cell.series, condition] = {block: good(gain) for block, gain in gains.items()}
    return found


def interval(differences: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the 95 % t interval of a mean difference; None with fewer than five or no SciPy."""
    if len(differences) < FEWEST or missing():
        return None
    from experiments.statistics.paired import t_interval

    return t_interval(differences)
