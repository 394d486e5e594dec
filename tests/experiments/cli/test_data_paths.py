"""Data beside a file of knobs are found from anywhere, and every command says what it read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.experiments.answers import refused

SAID = (
    "data: grey images of 12 × 12, uint8, each channel standardized; 60 to train and 9 to test; "
    "3 classes (0, 1, 2); from "
)


def written(path: Path, layout: str = "NHW") -> Path:
    x = np.random.default_rng(1).integers(0, 256, (60, 12, 12), np.uint8)
    x = x[:, None] if layout == "NCHW" else x
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
    written(project / "mine.npz", "NCHW")
    told = refused(fednf("data", "show", "--config", "project/f.toml", "--out", "deal"))
    assert "say which with data.layout=NCHW|NDHW" in told
    words = ("--config", "project/f.toml", "--set", "data.layout=NCHW", "--out", "deal")
    done = fednf("data", "show", *words)
    assert [line for line in done.lines if line.startswith(SAID)]


def test_a_file_that_is_not_there_is_named_as_it_was_given(fednf, project):
    (project / "mine.npz").unlink()
    told = refused(fednf("data", "show", "--config", "project/f.toml", "--out", "deal"))
    assert "data.name=mine.npz: mine.npz does not exist" in told
