"""The page is whole, honest and closed in itself; the sheets say what the journals say."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from experiments.report import csv_files, data_read, verdicts, words, write
from experiments.report.results import read
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import deal
from fl.reproducibility.files import fingerprint

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Balanced(HTMLParser):
    """Reads a page strictly: every tag is closed in turn, and ids are unique."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg", "script"} & set(self.open):
            self.text.append(data)


def parse(page):
    parser = Balanced()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    return re.sub(r"\s+", " ", "".join(parser.text))


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_study):
    """Write the study's report once; tests here read it, or write it again as it is."""
    return write(write_study(tmp_path_factory.mktemp("study")))


def test_the_page_is_closed_in_itself(page):
    html = page.read_text(encoding="utf-8")
    parse(page)
    assert not re.search(r"<(link|img|iframe|object)\b|<script[^>]", html)
    assert "@import" not in html
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', html)
    here = [attribute or css for attribute, css in references if not attribute.endswith("/")]
    assert here
    assert all(reference.startswith("#") for reference in here)
    folders = {attribute for attribute, _ in references if attribute.endswith("/")}
    assert folders == {f"{path.parent.name}/" for path in page.parent.glob("*/experiment.json")}


def test_the_page_says_what_a_reader_needs(page):
    text = parse(page)
    expected = ["Who holds up?", "BatchNorm", "ZC-Swish", "SaluNet", "guessing", "10.0%"]
    expected += ["Dirichlet α = 0.1, FedProx μ = 0.1", "fednf study trial", "2.13.0", "a processor"]
    assert [phrase for phrase in expected if phrase not in text] == []


def test_the_answer_says_no_more_than_the_numbers(page):
    text = parse(page)
    assert "No verdicts: with 5 seeds or more there are; here are 2." in text
    assert "every network loses accuracy at every seed: SaluNet the least (−18.0 points" in text
    assert 'class="number leads"' not in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def eight(tmp_path_factory, write_run):
    """Write what eight seeds decide: one network better, one equal, one undecided."""
    folder = tmp_path_factory.mktemp("eight")
    gains = {"batchnorm": 0, "zc-swish": 0.04, "groupnorm": 0.0, "none": 0.01}
    for recipe, gain in gains.items():
        for seed in range(1, 9):
            jitter = 0.001 * (-1) ** seed * (40 if recipe == "none" else 1)
            final = 0.5 + 0.01 * seed + gain + jitter * (recipe != "batchnorm")
            knobs = {"recipe": recipe, "seed": seed, "partition.kind": "iid"}
            write_run(folder / f"{recipe}-{seed}", [0.1, final, final], knobs)
    return folder


def test_verdicts_stand_where_they_belong(eight):
    page = write(eight)
    text = parse(page)
    assert "better than BatchNorm: ZC-Swish (+4.0 [+3.9, +4.1], n = 8)" in text
    assert "as good as BatchNorm: GroupNorm (" in text
    assert re.search(r"UNDECIDED: ReLU \(\d+ more seeds\)\.", text)
    assert page.read_text(encoding="utf-8").count('class="number leads"') == 1


def test_without_scipy_one_line_says_what_is_missing(eight, monkeypatch):
    monkeypatch.setattr(verdicts, "find_spec", lambda name: None)
    text = parse(write(eight))
    assert text.count("No verdicts and no test of collapse") == 1
    assert 'its extra "stats"' in text
    assert "UNDECIDED" not in text


def test_files_lie_beside_the_page(page):
    found = {path.name for path in (page.parent / "figures").iterdir()}
    drawn = ("accuracy", "forest", "heat", "rounds")
    assert found == {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    tables = {path.name for path in (page.parent / "tables").iterdir()}
    shown = ("outcome", "changes", "holding-up", "cost", "runs")
    assert tables == {f"{name}.{kind}" for name in shown for kind in ("csv", "tex")}


def test_writing_twice_gives_the_same_bytes(page):
    def written():
        beside = (*(page.parent / "figures").iterdir(), *(page.parent / "tables").iterdir())
        paths = [page, *page.parent.glob("*.csv"), *beside]
        return {path: path.read_bytes() for path in paths}

    first = written()
    write(page.parent)
    assert written() == first


def test_sheets_say_what_journals_say(page):
    folder = page.parent
    runs, rounds = rows(folder / "runs.csv"), rows(folder / "rounds.csv")
    assert (len(runs), len(rounds)) == (18, 54)
    for row in runs:
        result = json.loads((folder / row["run"] / "result.json").read_text())
        assert float(row["final_accuracy"]) == result["final_accuracy"]
        assert row["model_sha256"] == result["model_sha256"]
        assert row["recipe"] == row["run"].rsplit("-", 2)[0]
    journal = (folder / "zc-swish-iid-2" / "rounds.jsonl").read_text().splitlines()
    of_run = [row for row in rounds if row["run"] == "zc-swish-iid-2"]
    for row, line in zip(of_run, map(json.loads, journal), strict=True):
        assert int(row["round"]) == line["round"]
        assert float(row["test_accuracy"]) == line["test_accuracy"]
    cells = {(row["series"], row["condition"]): row for row in rows(folder / "summary.csv")}
    assert len(cells) == 9
    assert float(cells["ZC-Swish", "iid"]["final_accuracy_mean"]) == 0.75
    assert cells["ZC-Swish", "iid"]["best_rounds"] == "1 1"


def test_unfinished_runs_are_shown_and_not_counted(study, write_run):
    knobs = {"recipe": "swish", "partition.kind": "iid", "rounds": 9}
    before = json.loads((study / "batchnorm-iid-1" / "experiment.json").read_text())["knobs"]
    write_run(study / "late", [0.1, 0.95], {**knobs, "rounds": before["rounds"]}, finished=False)
    text = parse(write(study))
    assert "Unfinished, and therefore not counted: 1 of 19 runs." in text
    assert "1 of 2 rounds" in text
    assert "95.0%" not in text


def test_only_unfinished_runs_give_no_answer(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.4], finished=False)
    assert "No run is finished yet" in parse(write(tmp_path))


def test_one_run_is_a_report_too(tmp_path, write_run):
    write_run(tmp_path / "alone", [0.1, 0.5], refused=("loss is <nan>",))
    text = parse(write(tmp_path / "alone"))
    assert "ZC-Swish reaches 50.0%" in text
    assert "leads" not in text
    assert "loss is <nan> (1 ×)" in text


def test_single_value_steps_are_said(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5, 0.5], {"recipe": "batchnorm"}, single_value_steps=7)
    assert "In 14 of BatchNorm's 100 training steps" in parse(write(tmp_path))


def test_faulty_clients_are_said_in_one_line(tmp_path, write_run):
    knobs = {"faults.kind": "nan", "faults.clients": "3,5"}
    write_run(tmp_path / "bad", [0.1, 0.2, 0.3], knobs, refused=("not finite",))
    write_run(tmp_path / "good", [0.1, 0.2, 0.3])
    assert words.faults(read(tmp_path)) is None
    path = tmp_path / "bad" / "rounds.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[1:]:
        line["faulty"] = [{"partition": p, "fault": "nan"} for p in (3, 5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert words.faults(read(tmp_path)).endswith("nan, 4 of 30 requests (1 refused).")


def test_a_common_learning_rate_is_said(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5], {"recipe": "none"})
    write_run(tmp_path / "b", [0.1, 0.6], {"recipe": "swish"})
    assert "All networks had the same learning rate, 0.05" in parse(write(tmp_path))
    write_run(tmp_path / "c", [0.1, 0.6], {"recipe": "swish", "client.lr": 0.1})
    assert "the same learning rate" not in parse(write(tmp_path))


def test_pictures_of_deals_that_are_gone_go_too(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "deal-old.svg").touch()
    write(tmp_path)
    assert not (tmp_path / "figures" / "deal-old.svg").exists()


def test_files_that_a_killed_report_left_are_removed_by_the_next(tmp_path, write_run):
    write_run(tmp_path / "run", [0.1, 0.5])
    left = tmp_path / "figures" / ".rounds.svg-a1b2c3d4.part", tmp_path / ".report.html-ab12.part"
    (tmp_path / "figures").mkdir()
    for path in left:
        path.write_text("<")
    write(tmp_path)
    assert [path for path in left if path.exists()] == []


def test_different_circumstances_are_said(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    write_run(tmp_path / "b", [0.1, 0.5], {"seed": 2}, {"packages": {"torch": "2.12.0"}})
    text = parse(write(tmp_path))
    assert "different circumstances" in text
    assert "torch: 2.12.0 (1 run), 2.13.0 (1 run)" in text


def test_a_deal_is_drawn_only_if_it_is_the_run_s_own(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    assert "A deal can't be drawn here: Dirichlet α = 0.3, seed 1" in parse(write(tmp_path))
    assert not list((tmp_path / "figures").glob("deal*"))


def test_the_deal_is_drawn_and_said(tmp_path, write_run):
    knobs = Experiment.from_flat({"partition.kind": "iid", "partition.clients": 10})
    parts = deal(knobs)
    own = fingerprint({f"{i:06}": part.numpy() for i, part in enumerate(parts)})
    flat = {"partition.kind": "iid", "partition.clients": 10}
    write_run(tmp_path / "a", [0.1, 0.5], flat, {"deal_sha256": own})
    assert "10 clients hold 500 images each (median 500;" in parse(write(tmp_path))
    drawn = {path.name for path in (tmp_path / "figures").glob("deal*")}
    assert drawn == {"deal-iid-seed-1.png", "deal-iid-seed-1.svg"}


def test_text_is_escaped(tmp_path, write_run):
    nasty = "<script>alert('x')</script>&"
    write_run(tmp_path / "a", [0.1, 0.5], {"data.name": nasty}, {"command": f"fednf run {nasty}"})
    (tmp_path / "study.json").write_text(json.dumps({"question": nasty}))
    page = write(tmp_path)
    assert page.read_text(encoding="utf-8").count("<script") == 1, "which is ours"
    assert parse(page).count(nasty) >= 3


def test_no_runs_no_report(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


DATA = {
    "examples": "28 channels of length 28", "shape": [28, 28], "dtype": "float32", "mean": [0.1],
    "std": [0.2], "train": 60, "test": 9, "classes": ["a", "<b>"], "domains": 0, "source": "f.npz",
}  # fmt: skip
SAID = (
    "ata: 28 channels of length 28, float32, each channel standardized; 60 to train and 9 to "
    "test; 2 classes (a, <b>); from f.npz"
)


def test_the_data_that_were_read_are_said_once_a_reading(tmp_path, write_run):
    write_run(tmp_path / "old", [0.1, 0.5], {"seed": 3})  # which does not say it
    write_run(tmp_path / "a", [0.1, 0.5], {"seed": 1}, {"data": DATA})
    write_run(tmp_path / "b", [0.1, 0.5], {"seed": 2}, {"data": DATA})
    assert parse(write(tmp_path)).count(f"D{SAID}.") == 1
    assert data_read(tmp_path) == [f"d{SAID}"]
    other = {**DATA, "examples": "grey images of 28 × 28"}
    write_run(tmp_path / "c", [0.1, 0.5], {"seed": 4}, {"data": other})
    assert len(data_read(tmp_path)) == 2


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([[0.34, 0.3], [0.34, 0.2]], "best 34.0%, untrained"),
        ([[0.34, 0.3], [0.34, 0.5]], "best 42.0%, untrained at 1 of 2 seeds"),
        ([[0.34, 0.4], [0.34, 0.5]], ""),
    ],
)
def test_a_best_round_before_training_is_said(tmp_path, write_run, found, words):
    for seed, accuracies in enumerate(found):
        write_run(tmp_path / str(seed), accuracies, {"seed": seed})
    text = parse(write(tmp_path))
    assert words in text
    assert ("Untrained is round 0" in text) == ("untrained" in words)


def test_runs_csv_has_the_engine_that_was_taken(tmp_path, write_run):
    taken = {"engine": {"engine": "vectorized", "vectorized.lanes": 8}}
    write_run(tmp_path / "a", [0.1, 0.5], {"seed": 1}, taken)
    write_run(tmp_path / "b", [0.1, 0.5], {"seed": 2})  # of an earlier version
    rows = list(csv.DictReader(io.StringIO(csv_files.runs(read(tmp_path)))))
    assert {row["seed"]: row["engine"] for row in rows} == {"1": "vectorized", "2": "auto"}
