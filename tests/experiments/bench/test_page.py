"""The page's table of the mission's job is that of the files behind it."""

import json
from pathlib import Path

import pytest

import fl
from experiments.bench.page import main, reports, table

DOCS = Path(fl.__file__).parents[1] / "docs"
ROWS = DOCS / "measurements" / "mission"
AMD = ROWS / "amd"


@pytest.mark.parametrize(("folder", "rows"), [(ROWS, 13), (AMD, 6)])
def test_the_table_on_the_page_is_that_of_the_files(folder, rows):
    lines = "\n".join(table(reports(folder)))
    assert lines.count("\n") == rows + 1
    assert lines in (DOCS / "measurements/engines.md").read_text(encoding="utf-8")


def spread(figure: dict) -> list[float]:
    return [figure["least"], figure["median"], figure["most"]]


def approx(values):
    return pytest.approx(sorted(values))


@pytest.mark.parametrize("path", sorted(ROWS.rglob("*.json")), ids=lambda path: path.stem)
def test_a_file_s_figures_are_those_of_its_turns(path):
    """The first turn fills caches, and looks at memory; the others count."""
    report = json.loads(path.read_text(encoding="utf-8"))
    for case in report["jobs"]:
        assert not case["failed"]
        others = case["contenders"][report["against"]]["repetitions"][1:]
        for row in case["contenders"].values():
            first, *counted = row["repetitions"]
            assert len(counted) == report["repetitions"] == 3
            pairs = list(zip(counted, others, strict=True))
            rates = [turn["images"] / turn["seconds"] for turn in counted]
            assert spread(row["whole"]) == approx(turn["whole"] for turn in counted)
            assert spread(row["whole_ratio"]) == approx(b["whole"] / a["whole"] for a, b in pairs)
            assert spread(row["images_per_second"]) == approx(rates)
            assert spread(row["ratio"]) == approx(
                a["images"] / a["seconds"] / (b["images"] / b["seconds"]) for a, b in pairs
            )
            operations = sorted(rates)[1] * case["flops_per_image"]
            share = operations / report["peak_flops_per_second"]
            assert row["share_of_peak"] == pytest.approx(share)
            assert row["accuracy"] == counted[0]["accuracies"][-1]
            assert row["peak_bytes"] == first["peak_bytes"]


def test_it_is_printed_and_another_folder_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["page", str(ROWS)])
    assert main() == 0
    assert capsys.readouterr().out == "\n".join(table(reports(ROWS))) + "\n"
    monkeypatch.setattr("sys.argv", ["page", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
