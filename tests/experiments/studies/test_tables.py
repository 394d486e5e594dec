"""The pages of published tables: their tables are what the committed rows of a study come to."""

from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

import fl
from experiments.report import verdicts
from experiments.report.results import Cell, Results, read
from experiments.report.sections.decision import published
from experiments.statistics.verdicts import Judgement
from experiments.studies import ledger
from experiments.studies.tables import TABLES

TABLED = Path(fl.__file__).parents[1] / "docs/studies/tables"
NAMES = sorted(path.parent.name for path in TABLED.glob("*/runs.csv"))


@cache
def results(name: str) -> Results:
    """Read the committed rows of a study."""
    return read(TABLED / name / "none-but-its-rows", TABLED / name)


def page(name: str) -> list[str]:
    """Return the lines of a study's page."""
    return (TABLED / name / "page.md").read_text(encoding="utf-8").splitlines()


def line(*cells: object) -> str:
    """Write a row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |")


def ours(found: Results) -> list[str]:
    """Write what came out: a row a contender and condition, and what its verdict is."""
    lines = []
    for condition in found.conditions:
        judged = verdicts.judged(found, condition)
        for cell in sorted(found.column(condition), key=lambda cell: cell.series):
            outcome, measure = cell.outcome, found.measure
            reached = f"{measure.value(outcome.mean)} ({measure.extent(outcome.values)})"
            told = difference(found, cell), verdict(judged.get(cell.series))
            best = measure.value(cell.best.mean)
            lines.append(line(condition, cell.series, outcome.n, reached, best, *told))
    return lines


def difference(found: Results, cell: Cell) -> str:
    """Write a difference from the reference: mean, and interval or lowest and highest seed."""
    other, one = verdicts.reference(found, cell.condition), found.measure
    if other is None or cell == other or (gain := cell.gain_over(other)) is None:
        return "reference"
    low, high = verdicts.interval(gain.values) or (gain.low, gain.high)
    return f"{one.change(gain.mean)} [{one.change(low)}, {one.change(high)}]"


def verdict(one: Judgement | None) -> str:
    """Write what a comparison comes to; nothing of the reference."""
    if one is None:
        return ""
    return str(one) if one.verdict else "too few seeds"


def beside(found: Results, number: int) -> list[str]:
    """Write a published table and ours: a row a contender and condition."""
    return [
        line(row.condition, row.series, *published.written(row, found.measure))
        for row in published.beside(found, number)
    ]


def domains(found: Results) -> list[str]:
    """Write what each domain gets, as means over seeds: all shared, some local, the difference."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(dict)
    for run in found.finished:
        for domain, score in (run.result or {}).get("domains_accuracy", {}).items():
            scores[str(run.condition), domain].setdefault(str(run.series), {})[run.seed] = score[
                "mean"
            ]
    lines, measure = [], found.measure
    for (condition, domain), kept in sorted(scores.items()):
        shared = kept["all shared"]
        (local,) = (by_seed for name, by_seed in kept.items() if name != "all shared")
        gains = [local[seed] - shared[seed] for seed in shared]
        ends = f"{measure.change(min(gains))} to {measure.change(max(gains))}"
        means = [measure.value(fmean(one.values())) for one in (shared, local)]
        lines.append(line(condition, domain, *means, measure.change(fmean(gains)), ends))
    return lines


def test_every_table_has_its_rows():
    assert set(NAMES) <= set(TABLES)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_rows_are_those_of_the_study_as_it_is(name):
    kept = ledger.read(TABLED / name)
    asked = TABLES[name]["small"]()
    assert {study["name"] for run in kept for study in run.studies} == {name}
    there = [(run.header["identity"], run.header["knobs"]["rounds"]) for run in kept if run.result]
    assert sorted(there) == sorted((one.identity, one.rounds) for one in asked.experiments)
    assert len(kept) == len(there)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_s_tables_are_what_its_rows_come_to(name):
    found, told = results(name), page(name)
    tables = [beside(found, number) for number in range(len(found.tables))]
    drawn = [row for rows in (ours(found), *tables, domains(found)) for row in rows]
    assert not [row for row in drawn if row not in told]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_in_what_the_conditions_differ(name):
    text = " ".join(page(name))
    for table in TABLES[name]["small"]().tables:
        assert all(difference in text for difference in table.differences)
