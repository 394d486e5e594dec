"""Run folders from before knobs were renamed: reported, resumed and recognised like new ones."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.cli import terminal
from experiments.report.results import read
from fl.config import Experiment, renamed
from fl.server.journal import Journal
from fl.simulation import run
from fl.simulation.study import Study

KNOBS = {
    "engine": "vectorized",
    "vectorized.lanes": 2,
    "vectorized.level": "eager",
    "device": "cpu",
    "network.depth": 3,
    "network.width": 4,
    "partition.clients": 5,
    "sampling.clients": 2,
    "client.batch-size": 32,
    "rounds": 2,
}
OLD_WORDS = [
    word
    for key, value in renamed.first_spelling(KNOBS).items()
    for word in ("--set", f"{key}={value}")
]


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch):
    monkeypatch.setattr(renamed, "_told", set())


def make_old(folder: Path) -> None:
    """Rewrite a run's `experiment.json` as it was before knobs were renamed."""
    path = folder / "experiment.json"
    header = json.loads(path.read_text())
    for part in ("knobs", "engine"):
        header[part] = renamed.first_spelling(header[part])
    text = json.dumps(header, indent=1)
    assert '"cohort.lanes": 2' in text
    assert '"engine": "cohort"' in text
    assert '"vectorized' not in text
    path.write_text(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Make the folder of a finished run, in the old format."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(Experiment.from_flat(KNOBS), Journal(folder))
    make_old(folder)
    return folder


@pytest.fixture
def old(finished, tmp_path, make_unchecked):
    return make_unchecked(Path(shutil.copytree(finished, tmp_path / "old")))


def test_an_old_finished_folder_is_recognised(fednf, old, caplog):
    before = (old / "experiment.json").read_bytes()
    answer = fednf("run", *OLD_WORDS, "--out", "old")
    assert (answer.status, answer.err) == (0, "")
    assert "nothing was trained again" in answer.out
    assert (old / "experiment.json").read_bytes() == before
    assert len(caplog.messages) == 1


def test_an_old_folder_is_where_a_new_run_would_be(fednf, old):
    identity = json.loads((old / "experiment.json").read_text())["identity"]
    shutil.move(old, f"runs/zc-swish_seed-1_{identity[:8]}")
    new_words = [word for key, value in KNOBS.items() for word in ("--set", f"{key}={value}")]
    assert "nothing was trained again" in fednf("run", *new_words).out


def test_an_old_unfinished_folder_is_resumed_by_the_engine_that_it_began_with(fednf, old):
    result = Journal(old).result()
    for name in ("result.json", "model.safetensors"):
        (old / name).unlink()
    answer = fednf("run", *OLD_WORDS, "--out", "old", "--resume", "--json")
    assert json.loads(answer.lines[-1])["model_sha256"] == result["model_sha256"]


def test_old_and_new_folders_are_reported_side_by_side(fednf, old, tmp_path):
    words = [word for key, value in KNOBS.items() for word in ("--set", f"{key}={value}")]
    assert fednf("run", *words, "--set", "seed=2", "--out", "new").status == 0
    assert fednf("report", ".").status == 0
    results = read(tmp_path)
    assert sorted(run.name for run in results.finished) == ["new", "old"]
    assert len(results.conditions) == len(results.series) == len(results.cells) == 1
    assert (tmp_path / "report.html").is_file()


def test_an_old_folder_s_repeat_is_known_as_one(fednf, old, tmp_path):
    shutil.copytree(old, tmp_path / "again")
    header = Journal(old).header()
    (tmp_path / "again" / "experiment.json").write_text(json.dumps(header))
    results = read(tmp_path)
    assert (len(results.runs), len(results.repeats)) == (1, 1)


def test_a_setting_wins_over_an_old_spelling_in_a_file(tmp_path):
    path = tmp_path / "knobs.toml"
    path.write_text('engine = "cohort"\n[cohort]\nlanes = 3\n')
    found = terminal.flat(path, ["vectorized.lanes=4"])
    assert found == {"engine": "vectorized", "vectorized.lanes": 4}


def test_a_study_is_fixed_by_an_old_spelling():
    study = Study("mine", "Why?", (Experiment(),)).fixing({"cohort.lanes": 4})
    assert study.experiments[0].vectorized.lanes == 4
