"""A study is a table: reports from it and from folders are the same, and nothing is repeated."""

import csv
import json
import re
from pathlib import Path

import pytest

from experiments.report import csv_files, write
from experiments.report.results import read
from experiments.studies import ledger
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.contents import RIGHT
from fl.simulation.study import Study, each, grid
from tests.experiments.answers import refused


def written(folder):
    """Return what a report wrote, by path; without links to folders, which not all have."""
    beside = (*(folder / "figures").iterdir(), *(folder / "tables").iterdir())
    kept = [folder / "report.html", *folder.glob("*.csv"), *beside]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}
    links = rb'<a href="[^"]*">([^<]*)</a>'
    return found | {"report.html": re.sub(links, rb"\1", found["report.html"])}


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        1 / 3,
        4,
        True,
        None,
        "",
        "text",
        "3",
        "null",
        "0,5",
        '"',
        [1, {"a": None}],
        {"a.b": "ü\n"},
    ],
)
def test_a_cell_holds_any_value(tmp_path, value):
    rows = [{"a": ledger.cell(value), "b": ledger.cell("x")}]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["a", "b"])
        writer.writeheader()
        writer.writerows(rows)
    ((_, row),) = ledger.rows(tmp_path / "t.csv")
    assert row.get("a", "") == value
    assert type(row.get("a", "")) is type(value)


@pytest.mark.parametrize(
    "what", ["devices", *(pytest.param(w, marks=pytest.mark.slow) for w in ("study", "one"))]
)
def test_a_report_from_tables_is_the_report_from_folders(tmp_path, write_study, write_run, what):
    """Texts, figures, and the tables themselves, to the byte."""
    folder = tmp_path / "there"
    if what == "study":
        write_study(folder)
        reasons = ("loss is <nan>", 'a "quoted", text')
        write_run(folder / "more", [0.1, 0.2], {"seed": 7}, refused=reasons, finished=False)
    elif what == "devices":
        knobs = {"recipe": "batchnorm", "faults.kind": "nan", "faults.clients": "3"}
        engine = {"engine": {"engine": "vectorized", "vectorized.lanes": 8}}
        for seed in (1, 2):
            write_run(
                folder / str(seed), [0.1, 0.1, 0.1], {**knobs, "seed": seed}, engine,
                gradient_norm=0.5, single_value_steps=7,
            )  # fmt: skip
    else:
        write_run(folder, [0.1, 0.5])
    write(folder)
    out = tmp_path / "out"
    write(out, tables=[folder])
    assert written(out) == written(folder)
    assert [run.header for run in read(out, folder).runs] == [
        run.header for run in read(folder).runs
    ]
    write(out, tables=[out])
    assert written(out) == written(folder), "and from its own tables"


@pytest.mark.slow
def test_one_number_that_is_changed_changes_the_report(study, tmp_path):
    write(study)
    text = (study / "rounds.csv").read_text(encoding="utf-8")
    assert text.count(",0.72,") == 1
    (study / "rounds.csv").write_text(text.replace(",0.72,", ",0.62,"), encoding="utf-8")
    write(tmp_path / "out", tables=[study])
    assert written(tmp_path / "out")["report.html"] != written(study)["report.html"]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "runs.csv",
            lambda text: text.replace("rounds_done", "x"),
            "row 1 is not one that a report",
        ),
        ("rounds.csv", lambda text: text.replace(",salunet-iid-1,", ",lost,"), "lost"),
        ("runs.csv", None, "has no runs.csv"),
    ],
)
def test_tables_that_are_none_are_told_in_one_line(study, tmp_path, name, change, told):
    results = read(study)
    for sheet in (csv_files.runs, csv_files.rounds):
        (study / f"{sheet.__name__}.csv").write_text(sheet(results), encoding="utf-8")
    path = study / name
    if change:
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        path.unlink()
    with pytest.raises(ConfigError, match=told):
        write(tmp_path / "out", tables=[study])
    assert not (tmp_path / "out").exists()


def test_tables_say_of_the_last_round_alone_which_examples_were_right(tmp_path, write_run):
    for seed in (1, 2):
        write_run(tmp_path / str(seed), [0.1, 0.2, 0.3], {"seed": seed})
    results = read(tmp_path)
    for run in results.runs:
        for line in run.rounds:
            line[RIGHT] = f"{run.seed}:{line['round']}"
    rows = list(csv.DictReader(csv_files.rounds(results).splitlines()))
    assert [row[RIGHT] for row in rows] == ["", "", "1:2", "", "", "2:2"]
    assert all(RIGHT in line for run in results.runs for line in run.rounds), "these stay"


STUDY_FILE = """
import fl
SMALL = {"network.depth": 3, "network.width": 4, "rounds": 1, "partition.kind": "iid"}
SMALL |= {"partition.clients": 100, "sampling.clients": 1, "device": "cpu"}
STUDY = fl.Study("small", "Which?", fl.grid(
    fl.Experiment.from_flat(SMALL), [{"recipe": "none"}], [{"seed": s} for s in SEEDS]))
"""


@pytest.mark.slow
def test_a_declaration_counts_what_a_ledger_has(fednf):
    """What was declared before any run stays so elsewhere; another declaration comes after them."""

    def declared(margin, *words):
        file = STUDY_FILE.replace("SEEDS", "(1, 2)").replace('[{"recipe": "none"}]', TWO)
        Path("small.py").write_text(file[: file.rindex(")")] + f", {DECLARED}margin={margin}))\n")
        done = fednf("study", "small.py", "--jobs", "1", *words)
        assert done.status == 0, done.err
        out = Path(words[words.index("--out") + 1])
        return json.loads((out / "study.json").read_text())["contrasts"]

    assert declared(1, "--out", "here")["runs_done_before"] == 0
    assert declared(1, "--out", "there", "--from", "here")["runs_done_before"] == 0
    assert declared(2, "--out", "other", "--from", "here")["runs_done_before"] == 4


TWO = '[{"recipe": "none"}, {"recipe": "zc-swish"}]'
DECLARED = 'contrasts=fl.Contrasts({"recipe": "none"}, ({"recipe": "zc-swish"},), '


@pytest.mark.slow
def test_a_study_goes_on_elsewhere_without_repeating_what_a_ledger_has(fednf):
    Path("small.py").write_text(STUDY_FILE.replace("SEEDS", "(1,)"))
    assert fednf("study", "small.py", "--out", "here", "--jobs", "1").status == 0
    Path("small.py").write_text(STUDY_FILE.replace("SEEDS", "(1, 2)"))
    done = fednf("study", "small.py", "--out", "there", "--jobs", "1", "--from", "here")
    assert done.status == 0, done.err
    assert "1 of 2 runs are in the ledger there/ledger" in done.out
    assert [path.parent.name for path in Path("there").glob("*/experiment.json")] == ["none_seed-2"]
    runs = read(Path("there")).runs
    assert [(run.seed, bool(run.result)) for run in runs] == [(1, True), (2, True)]
    (first,) = read(Path("here")).runs
    assert runs[0].result["model_sha256"] == first.result["model_sha256"]
    again = fednf("study", "small.py", "--out", "there", "--jobs", "1", "--json")
    assert json.loads(again.lines[-1])["failed"] == {}
    assert fednf("report", "--from", "there").lines[-1] == "report: runs/there/report.html"
    assert Path("runs/there/report.html").is_file()
    assert "--from a folder of tables" in refused(fednf("report"))


def test_other_knobs_and_other_rounds_are_not_taken_for_done(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5], {"recipe": "none"})
    for sheet in (csv_files.runs, csv_files.rounds):
        (tmp_path / f"{sheet.__name__}.csv").write_text(sheet(read(tmp_path)), encoding="utf-8")
    base = Experiment.from_flat({"recipe": "none", "rounds": 1})
    ledger.take(tmp_path, tmp_path / "out")
    for other, found in (({}, 1), ({"rounds": 2}, 0), ({"client.lr": 0.07}, 0), ({"seed": 2}, 0)):
        asked = Study("s", "?", grid(base.replace(other), each("device", ["auto"])))
        assert len(ledger.done(asked, tmp_path / "out" / ledger.FOLDER)) == found
