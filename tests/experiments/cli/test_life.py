"""Typing less, and typing it again: runs and studies that go on, and networks that are used."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.cli import study as study_cli
from experiments.studies.workers import work_with
from fl.data import load
from fl.server.journal import Journal

KNOBS = {
    "network.depth": 3,
    "network.width": 4,
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 2,
    "client.batch-size": 32,
    "recipe": "none",
}
SET = [word for key, value in KNOBS.items() for word in ("--set", f"{key}={value}")]
STUDY = """
import fl

BASE = fl.Experiment.from_flat({knobs})
STUDY = fl.Study("mine", "Why?", tuple(BASE.replace({{"seed": seed}}) for seed in {seeds}))
"""


def test_a_run_goes_on_without_its_knobs(fednf, tmp_path):
    begun = fednf("run", *SET, "--rounds", "1", "--out", "a", "--json")
    assert "ended by rounds=1" in begun.out
    longer = fednf("run", "--rounds", "2", "--out", "a", "--json")
    whole = fednf("run", *SET, "--set", "rounds=2", "--out", "b", "--json")
    hashes = [json.loads(done.lines[-1])["model_sha256"] for done in (longer, whole)]
    assert hashes[0] == hashes[1]
    (tmp_path / "a" / "result.json").unlink()
    again = fednf("run", "--resume", "--out", "a", "--json")
    assert json.loads(again.lines[-1])["model_sha256"] == hashes[0]
    assert "nothing was trained again" in fednf("run", "--resume", "--out", "a").out


REFUSED = {
    "run --resume --out nowhere": "nowhere holds no run to go on with; leave --resume and --rounds",
    "run --rounds 3 --out nowhere": "nowhere holds no run to go on with",
    "run --rounds 1 --out a": "2 rounds are done, and with rounds=1 there would be 1",
    "run --resume --out a --set client.lr=0.3": "client.lr=0.05 there, 0.3 here",
    "run --set run.start-from=nowhere": "run.start-from=nowhere: nowhere is not here; expected the",
    "run --set run.patience=2": "run.patience=2 goes by validation images",
    "predict nowhere x.png": "nowhere holds no run",
    "predict a nowhere.png": "none of the files could be read",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a finished run."""
    from fl.config import Experiment
    from fl.simulation import run

    folder = tmp_path_factory.mktemp("trained") / "a"
    run(Experiment.from_flat({**KNOBS, "rounds": 2}), Journal(folder))
    return folder


@pytest.mark.parametrize("command", REFUSED)
def test_what_can_not_go_on_is_one_line(fednf, tmp_path, trained, command):
    (tmp_path / "a").symlink_to(trained)
    done = fednf(*command.split())
    assert done.status == 2
    assert REFUSED[command] in done.err.splitlines()[-1]
    assert not (tmp_path / "nowhere").exists()


def pictures(folder) -> None:
    from PIL import Image

    images = load("fashion-mnist-small").test.images
    (folder / "inner").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(images[number, 0].numpy()).save(folder / f"{number}.png")
    Image.new("RGB", (32, 30)).save(folder / "inner" / "large.png")
    (folder / "inner" / "notes.txt").write_text("none")
    (folder / "broken.png").write_bytes(b"none")
    np.save(folder / "many.npy", images[:3, 0].numpy())
    np.savez(folder / "set.npz", test_images=images[:3, 0].numpy(), test_labels=np.arange(3))
    np.save(folder / "reals.npy", images[:3, 0].numpy() / 255)


def test_a_picture_is_one_example_and_not_one_for_each_channel(fednf, tmp_path, trained):
    from PIL import Image

    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(tmp_path / "rgb.png")
    refusal = fednf("predict", str(trained), "rgb.png")
    assert refusal.status == 2
    assert "rgb.png has the size 3x28x28, and the run is for 1x28x28" in refusal.err


def test_pictures_are_predicted_as_the_run_s_own_were(fednf, tmp_path, trained):
    pictures(tmp_path / "files")
    words = ("predict", str(trained), "files", "--top", "3", "--json", "--out", "out.csv")
    done = fednf(*words)
    assert done.status == 0
    told = json.loads(done.lines[-1])
    found = {row["file"]: row["classes"] for row in told["predictions"]}
    names = [f"files/{n}.png" for n in range(3)]
    names += [f"files/{file}[{n}]" for file in ("many.npy", "set.npz") for n in range(3)]
    assert list(found) == names
    for n in range(3):
        assert list(found[f"files/{n}.png"]) == list(found[f"files/many.npy[{n}]"])
        assert found[f"files/{n}.png"] == pytest.approx(found[f"files/set.npz[{n}]"])
        assert len(found[f"files/{n}.png"]) == 3
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 9 * 3
    complaints = done.err.splitlines()
    assert len(complaints) == 4
    said = (
        "can't read files/broken.png: it is none of PNG",
        "files/reals.npy: values are float64, and the run's data are uint8",
        "files/inner/large.png has the size 3x30x32, and the run is for 1x28x28",
        "files/inner/notes.txt is none of .png",
    )
    for words in said:
        assert any(words in line for line in complaints), words
    best = fednf("predict", str(trained), "files/0.png", "--best")
    assert best.lines[0].startswith("files/0.png: ")


def study(folder, seeds, **knobs) -> None:
    text = STUDY.format(knobs={**KNOBS, "rounds": 1, **knobs}, seeds=seeds)
    (folder / "mine.py").write_text(text)


def test_a_changed_study_says_what_changed_and_begins_afresh(fednf, tmp_path, monkeypatch):
    monkeypatch.setattr(study_cli, "load_plots", lambda: SimpleNamespace(write=lambda x, **_: x))
    here = lambda jobs, workers, command, watch: work_with(None, jobs, command, watch)  # noqa: E731
    monkeypatch.setattr(study_cli, "work_through", here)  # without processes
    study(tmp_path, (1, 2))
    assert fednf("study", "mine.py", "--out", "old", "--jobs", "1").status == 0
    before = (tmp_path / "old" / "none_seed-1" / "rounds.jsonl").read_bytes()
    study(tmp_path, (1, 2), **{"client.lr": 0.1})
    refused = fednf("study", "mine.py", "--out", "old")
    assert refused.status == 2
    assert refused.err.splitlines() == [
        "none_seed-1: client.lr was 0.05, is 0.1",
        "none_seed-2: client.lr was 0.05, is 0.1",
        "fednf: old holds this study as it was before: put it back, or add --fresh to run it anew "
        "in old-2",
    ]
    study(tmp_path, (1, 3), rounds=2)
    more = fednf("study", "mine.py", "--out", "old", "--jobs", "1")
    assert more.status == 0
    assert more.lines[:2] == [
        "none_seed-1: rounds was 1, is 2; the run goes on",
        "no longer in the study, and still in its report: none_seed-2 (1 runs)",
    ]
    assert (tmp_path / "old" / "none_seed-1" / "rounds.jsonl").read_bytes().startswith(before)
    study(tmp_path, (1,), **{"client.lr": 0.1})
    assert fednf("study", "mine.py", "--out", "old", "--jobs", "1", "--fresh").status == 0
    assert Journal(tmp_path / "old-2" / "none_seed-1").header()["knobs"]["client.lr"] == 0.1
