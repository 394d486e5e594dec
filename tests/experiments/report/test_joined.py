"""Several folders in one report: runs once, studies as they were declared, and clashes told."""

import csv
import io
import json
import shutil

import pytest

from experiments.report import csv_files, verdicts, write
from experiments.report.results import join, read
from experiments.report.verdicts import wording
from fl.config.parsing import ConfigError
from tests.experiments.answers import refused
from tests.experiments.report.test_ledger import written
from tests.experiments.report.test_report import parse

GAINS = {"batchnorm": 0.0, "zc-swish": 0.04, "swish": 0.01}
SEEDS = range(1, 7)


def study(write_run, folder, recipes, **contrasts):
    """Write a study of recipes on even clients that declares what it compares."""
    for recipe in recipes:
        for seed in SEEDS:
            final = 0.5 + 0.01 * seed + GAINS[recipe] + 0.001 * (-1) ** seed
            knobs = {"recipe": recipe, "seed": seed, "partition.kind": "iid"}
            write_run(folder / f"{recipe}-{seed}", [0.1, final, final], knobs)
    about = {"name": folder.name, "question": f"What of {folder.name}?", "command": "fednf study s"}
    if contrasts:
        about["contrasts"] = {"reference": {}, "family": [], "endpoint": "late-mean", **contrasts}
    (folder / "study.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def two(tmp_path, write_run):
    """Write two studies that share their runs of BatchNorm."""
    first = study(write_run, tmp_path / "first", ["batchnorm", "zc-swish"], margin=1)
    second = study(
        write_run, tmp_path / "second", ["batchnorm", "swish"], margin=5,
        reference={"recipe": "batchnorm"}, family=[{"recipe": "swish"}],
    )  # fmt: skip
    return first, second


def sheet(results):
    return list(csv.DictReader(io.StringIO(csv_files.runs(results))))


def judged(results):
    """Return the judgements of every part by study and contender."""
    return {
        (part.name, str(series)): one
        for part in results.parts
        for condition in part.conditions
        for series, one in verdicts.judged(part, condition).items()
    }


def test_the_runs_of_several_folders_are_one_table(two, tmp_path):
    results = join(two, [], tmp_path / "out")
    alone = [read(folder) for folder in two]
    assert len(results.runs) == 18
    assert {run.folder for run in results.runs} == {"first", "second"}
    assert {run.name for run in results.runs} >= {"first/batchnorm-1", "second/swish-6"}
    assert not results.repeats
    ((condition,), both) = results.conditions, verdicts.judged(results, results.conditions[0])
    assert {str(series) for series in both} == {"ZC-Swish", "Swish"}
    assert {one.alpha for one in both.values()} == {0.05 / 2}
    assert not any(verdicts.confirmatory(results, cell) for cell in results.cells.values())
    own = {
        (name.name, str(series)): one
        for name in alone
        for series, one in verdicts.judged(name, name.conditions[0]).items()
    }
    assert judged(results) == own, "what a study declared is judged as in its own report"
    assert {key: one.margin for key, one in own.items()} == {
        ("first", "ZC-Swish"): 0.01, ("second", "Swish"): 0.05
    }  # fmt: skip
    assert condition in alone[0].conditions


@pytest.mark.slow
def test_the_page_keeps_questions_and_declarations_and_says_whose_a_run_is(two, tmp_path):
    text = parse(write(tmp_path / "out", folders=two))
    for name, margin in (("first", "1.0"), ("second", "5.0")):
        assert f"{name}: What of {name}?" in text
        assert f"margin {margin} points" in text
    assert "What came out of first and second?" in text
    assert "No comparison was declared before the runs: all are exploratory." in text
    rows = sheet(join(two, [], tmp_path / "out"))
    assert {(row["folder"], row["run"].partition("/")[0]) for row in rows} == {
        ("first", "first"), ("second", "second")
    }  # fmt: skip


@pytest.mark.parametrize("which", [(0,), (0, 1)])
def test_tables_join_as_their_folders_do(two, tmp_path, which):
    tables = [folder for n, folder in enumerate(two) if n in which]
    for folder in tables:
        for name in (csv_files.runs, csv_files.rounds):
            (folder / f"{name.__name__}.csv").write_text(name(read(folder)), encoding="utf-8")
    folders = [folder for n, folder in enumerate(two) if n not in which]
    found = judged(join(folders, tables, tmp_path / "out"))
    assert found == judged(join(two, [], tmp_path / "out"))


@pytest.mark.slow
def test_a_table_of_several_folders_has_the_words_of_each_study(two, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    write(whole, folders=two)
    write(again, folders=[], tables=[whole])
    assert "folder" not in join([], [whole], again).runs[0].rounds[0]
    assert parse(again / "report.html") == parse(whole / "report.html")
    first, second = written(whole), written(again)
    assert {name for name in first if second[name] != first[name]} <= {"report.html"}


def test_one_study_done_in_two_places_is_one_study(tmp_path, write_run):
    places = [tmp_path / place / "s" for place in ("a", "b")]
    done = (["batchnorm", "zc-swish"], 1), (["batchnorm"], 2)
    for place, (recipes, comparisons) in zip(places, done, strict=True):
        study(write_run, place, recipes, margin=1, comparisons=comparisons)
    shutil.rmtree(places[0] / "batchnorm-6")
    results = join(places, [], tmp_path / "out")
    assert (results.parts, results.question, len(results.runs)) == ((), "What of s?", 12)
    assert {run.folder for run in results.runs} == {"a/s", "b/s"}
    (one,) = verdicts.judged(results, results.conditions[0]).values()
    assert (one.n, one.verdict, one.alpha) == (6, "UNDECIDED", 0.05 / 2)
    assert wording.declared(results).startswith("Declared, and so confirmatory: ZC-Swish")


def test_of_one_run_that_which_went_farther_is_told(tmp_path, write_run):
    for name, scores in (("a", [0.1, 0.2]), ("b", [0.1, 0.2, 0.3])):
        write_run(tmp_path / name, scores, finished=False)
    results = join([tmp_path / "a", tmp_path / "b"], [], tmp_path / "out")
    assert [(run.name, run.rounds_done) for run in results.runs] == [("b", 2)]


def test_knobs_that_do_not_bear_on_a_run_make_no_other_run(tmp_path, write_run):
    for name, alpha in (("a", 0.1), ("b", 0.3)):
        write_run(tmp_path / name, [0.1, 0.5], {"partition.kind": "iid", "partition.alpha": alpha})
    results = join([tmp_path / "a", tmp_path / "b"], [], tmp_path / "out")
    assert [run.name for run in results.runs] == ["a"]


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([0.1, 0.4, 0.5], "other figures in round 1"),
        ([0.1, 0.3, 0.5], r"other networks at their end \(model_sha256 eeeeeeee and ffffffff\)"),
    ],
)
def test_a_clash_is_refused_in_one_line_and_nothing_is_written(
    fednf, tmp_path, write_run, there, told
):
    write_run(tmp_path / "a", [0.1, 0.3, 0.5])
    write_run(tmp_path / "b" / "one", there)
    path = tmp_path / "b" / "one" / "result.json"
    path.write_text(path.read_text().replace("e" * 64, "f" * 64))
    answer = fednf("report", "a", "b")
    assert not list(tmp_path.rglob("report.html"))
    line = refused(answer)
    assert line.startswith("a and b/one have the same knobs and seed, and ")
    with pytest.raises(ConfigError, match=told):
        join([tmp_path / "a", tmp_path / "b"], [], tmp_path / "out")


def test_every_folder_has_to_have_runs(fednf, tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    (tmp_path / "empty").mkdir()
    assert refused(fednf("report", "a", "empty")).startswith("empty holds no run to report")


@pytest.mark.slow
def test_the_command_joins_folders_and_tables(fednf, two, tmp_path):
    assert fednf("report", "first", "second").lines[-1] == ("report: runs/first+second/report.html")
    joined = fednf("report", "first", "--from", "runs/first+second", "--out", "other")
    assert joined.lines[-1] == "report: other/report.html"
    assert "18 finished runs with 6 seeds" in parse(tmp_path / "other" / "report.html")
