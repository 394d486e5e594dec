"""Tables of the documentation, redrawn from the rows that are committed beside them."""

import csv
import io
from pathlib import Path

import pytest

import fl
from experiments.report import csv_files
from experiments.report.results import read
from experiments.studies.rates import DEMO_RATES

DOCS = Path(fl.__file__).parents[1] / "docs"
TABLES = [("measurements/results.md", "studies/demo")]


def printed(page: Path) -> set[tuple[str, ...]]:
    """Return the rows of all tables of a page."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines}


def as_printed(row: dict[str, str]) -> str:
    """Write one cell as pages do: the mean over seeds, the lowest and the highest, in per cent."""
    mean, low, high = (
        f"{100 * float(row[f'late_accuracy_{k}']):.1f}" for k in ("mean", "min", "max")
    )
    return f"{mean} ({low}–{high})"


@pytest.mark.parametrize(("page", "ledger"), TABLES)
def test_a_table_is_what_its_committed_rows_come_to(page, ledger, tmp_path):
    found = csv_files.summary(read(tmp_path, DOCS / ledger))
    rows: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(found)):
        rows.setdefault(row["series"], []).append(as_printed(row))
    assert len(rows) == 6
    assert {(name, *cells) for name, cells in rows.items()} <= printed(DOCS / page)


def test_the_rates_of_the_demo_are_those_that_won():
    rows = csv.DictReader((DOCS / "studies/demo/tuning.csv").read_text().splitlines())
    won = {row["recipe"]: float(row["client.lr"]) for row in rows if row["kept"] == "True"}
    assert won == DEMO_RATES
