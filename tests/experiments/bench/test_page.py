"""The page's table of the mission's job is that of the files behind it."""

import json
from pathlib import Path

import pytest

import fl
from experiments.bench.page import main, reports, table

DOCS = Path(fl.__file__).parents[1] / "docs"
ROWS = DOCS / "measurements" / "mission"


def test_the_table_on_the_page_is_that_of_the_files():
    lines = "\n".join(table(reports(ROWS)))
    assert lines.count("\n") > 8
    assert lines in (DOCS / "measurements/engines.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ROWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_file_s_figures_are_those_of_its_turns(path):
    """The first turn fills caches, and looks at memory; the others count."""
    report = json.loads(path.read_text(encoding="utf-8"))
    for case in report["jobs"]:
        assert not case["failed"]
        for row in case["contenders"].values():
            _, *counted = row["repetitions"]
            assert len(counted) == report["repetitions"] == 3
            assert row["whole"]["median"] == sorted(turn["whole"] for turn in counted)[1]
            others = case["contenders"][report["against"]]["repetitions"][1:]
            ratios = [b["whole"] / a["whole"] for a, b in zip(counted, others, strict=True)]
            assert row["whole_ratio"]["median"] == pytest.approx(sorted(ratios)[1])


def test_it_is_printed_and_another_folder_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["page", str(ROWS)])
    assert main() == 0
    assert capsys.readouterr().out == "\n".join(table(reports(ROWS))) + "\n"
    monkeypatch.setattr("sys.argv", ["page", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
