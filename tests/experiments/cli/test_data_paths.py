"""Data beside a file of knobs are found from anywhere, and every command says what it read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import fl
from fl.config.parsing import ConfigError
from fl.data import load
from fl.simulation.study import from_file
from tests.experiments.answers import refused

SAID = (
    "data: grey images of 12 × 12, uint8, each channel standardized; 60 to train and 9 to test; "
    "3 classes (0, 1, 2); from "
)


def written(path: Path, floats: bool = False) -> Path:
    x = np.random.default_rng(1).integers(0, 256, (60, 12, 12), np.uint8)
    x = x.astype(np.float32) if floats else x
    y = np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return path


@pytest.fixture
def project(tmp_path):
    """A folder with data and a file of knobs that names them as they lie beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    written(folder / "mine.npz")
    (folder / "f.toml").write_text(
        '[data]\nname = "mine.npz"\n[network]\ndepth = 3\nwidth = 4\n'
        '[partition]\nclients = 2\nkind = "iid"\n[sampling]\nclients = 2\n'
    )
    return folder


def test_a_run_says_what_it_read_and_keeps_it_for_the_report(fednf, project):
    words = ("--config", "project/f.toml", "--set", "rounds=1", "--out", "run", "--quiet")
    done = fednf("run", *words)
    assert done.status == 0, done.err
    header = json.loads(Path("run/experiment.json").read_text())
    assert header["knobs"]["data.name"] == str(project / "mine.npz")
    assert header["data"]["shape"] == [1, 12, 12]
    report = fednf("report", "run")
    assert [line for line in report.lines if line.startswith(SAID)]
    assert f"D{SAID[1:]}" in Path("run/report.html").read_text()
    (row,) = csv.DictReader(Path("run/runs.csv").read_text().splitlines())
    assert row["engine"] == header["engine"]["engine"] != "auto"


def test_a_file_that_may_be_several_things_is_asked_about_and_read_as_it_says(fednf, project):
    written(project / "mine.npz", floats=True)
    told = refused(fednf("data", "show", "--config", "project/f.toml", "--out", "deal"))
    assert "say which with data.layout=NHW|NLC|NCL" in told
    words = ("--config", "project/f.toml", "--set", "data.layout=NHW", "--out", "deal")
    done = fednf("data", "show", *words)
    said = SAID.replace("uint8", "float32")
    assert [line for line in done.lines if line.startswith(said)]


def test_a_file_that_is_not_there_is_named_as_it_was_given(fednf, project):
    (project / "mine.npz").unlink()
    told = refused(fednf("data", "show", "--config", "project/f.toml", "--out", "deal"))
    assert "data.name=mine.npz: mine.npz does not exist" in told


THERE = ("~/mine.npz", "~/../home/mine.npz", "./mine.npz", "mine.npz/", "a b/ü 图.npz", "link.npz")
ODD = {
    "~/nope.npz": "home/nope.npz does not exist",
    "~nosuchuser/mine.npz": "~nosuchuser is nobody's home",
    "$HOME/mine.npz": r"does not exist; variables such as \$HOME are not read here",
    "MINE.npz": "MINE.npz does not exist",
    "mine.npz/x.npz": "does not exist",
    "folder.npz": "has no layout that is known here",
    "broken.npz": "it is a link to nowhere, where nothing is",
    "circle.npz": "a link to itself",
    "net.py": "of a function's data say net.py:NAME; accepted",
    "/": "/ has no layout that is known here",
    " ": "data.name is empty",
    "a" * 300: "File name too long",
    "mine.npz\0": "no such data set|embedded null",
    "hf:": "expected hf:NAME or hf:OWNER/NAME",
    "hf:../x": "expected hf:NAME or hf:OWNER/NAME",
    "hf:a b/c": "expected hf:NAME or hf:OWNER/NAME",
    "kept:../../x": "expected a name that `keep` returned",
    "medmnist:../x": "expected a name such as organmnist3d",
    "file:///mine.npz": "does not exist",
    " fashion-mnist-small": "did you mean fashion-mnist-small",
}


def test_a_path_is_found_or_it_is_said_what_is_wrong_with_it(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "a b").mkdir(parents=True)
    (home / "folder.npz").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    written(home / "mine.npz")
    written(home / "a b" / "ü 图.npz")
    (home / "net.py").touch()
    for link, to in (("link", "mine.npz"), ("broken", "nowhere"), ("circle", "circle.npz")):
        (home / f"{link}.npz").symlink_to(to)
    for name in THERE:
        assert len(load(name).train) == 60, name
    for name, said in ODD.items():
        with pytest.raises(ConfigError, match=said) as error:
            load(name)
        assert len(str(error.value)) < 500


def test_a_folder_that_may_not_be_entered_is_said(monkeypatch):
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", forbidden)
    with pytest.raises(ConfigError, match=r"can't look at /x/mine\.npz: Permission denied"):
        load("/x/mine.npz")


def test_home_is_read_wherever_a_path_is_given(fednf, project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    words = ("--config", "project/f.toml", "--set", "rounds=1", "--quiet", "--workers", "1")
    assert fednf("run", *words, "--out", "~/run").status == 0
    assert (project / "run" / "model.safetensors").is_file()
    assert not Path("~").exists()
    assert len(fl.results("~/run")) == 1
    assert fl.load_model("~/run").shape == (1, 12, 12)
    (project / "net.py").write_text("from torch import nn\nNet = nn.Identity\n")
    found = fl.Experiment.from_flat({"network.kind": "~/net.py:Net", "run.start-from": "~/run"})
    assert found.network.kind == "net.py:Net"
    assert len(found.run.start_sha256) == 64


def test_weights_beside_a_file_of_knobs_are_found(fednf, project, tmp_path):
    words = ("--set", "rounds=1", "--quiet", "--workers", "1")
    assert fednf("run", "--config", "project/f.toml", *words, "--out", "project/one").status == 0
    with (project / "f.toml").open("a") as file:
        file.write('[run]\nstart-from = "one"\n')
    assert fednf("run", "--config", "project/f.toml", *words, "--out", "two").status == 0
    header = json.loads((tmp_path / "two" / "experiment.json").read_text())
    assert header["knobs"]["run.start-from"] == str(project / "one")
    told = refused(fednf("run", *words, "--set", "run.start-from=project/mine.npz", "--out", "no"))
    assert "can't read project/mine.npz as safetensors" in told
    (project / "study.py").write_text(
        "from fl import Experiment, Study\n"
        'STUDY = Study("s", "?", (Experiment.from_flat({"run.start-from": "one"}),))\n'
    )
    (made,) = from_file(project / "study.py").experiments
    assert (made.run.start_from, len(made.run.start_sha256)) == (str(project / "one"), 64)


def test_a_file_without_the_name_of_what_is_in_it_gets_a_hint(fednf):
    for knob in ("network.kind=net.py", "network.kind=net.py:", "task.loss=a/net.py"):
        told = refused(fednf("run", "--set", knob, "--out", "no"))
        assert "say what in the file: " in told
        assert "net.py:NAME" in told
