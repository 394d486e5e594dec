"""Other tasks than classification under `flwr run`: the same bytes as in one process.

Each run takes half a minute. `FEDNF_FULL=1` has all tasks, otherwise two stand for them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl.config import Experiment
from fl.config.parsing import to_toml
from fl.data import Dataset
from fl.server.journal import Journal
from fl.simulation import run
from tests import flower
from tests.conftest import TINY
from tests.fl.tasks import toys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]
MINE = '''
import numpy as np

import fl


def clothes(path: str):
    found = dict(np.load(path))
    classes = found.pop("classes").tolist()
    return fl.Dataset(
        train=(found["images"], found["labels"]),
        test=(found["test_images"], found["test_labels"]),
        classes=classes,
    )


class Note(fl.Callback):
    """Writes down which rounds it was told of."""

    def run_begun(self, run):
        self.path = run.folder / "told.txt"

    def round_done(self, line):
        with self.path.open("a") as file:
            file.write(f"{line['round']} ")
'''
OWN = {key: value for key, value in TINY.items() if not key.startswith("network.")}
PIXELS = {"task.kind": "pixels.py:Pixelwise", "network.kind": "pixels.py:Net", "recipe": "own"}


@pytest.fixture(scope="module")
def flower_home(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Give Flower a home of its own, so one SuperLink for all runs."""
    with flower.flower_home(tmp_path_factory.mktemp("flower")) as environment:
        yield environment


def masks() -> Dataset:
    return toys.relabelled(toys.bright, ("dark", "bright"))


TASKS = {
    "multilabel": (
        lambda: toys.relabelled(toys.attributes, toys.ATTRIBUTES),
        {"task.kind": "multilabel", "task.metrics": "macro-f1,auc"},
    ),
    "regression": (
        lambda: toys.relabelled(toys.moments, ("mean", "deviation")),
        {"task.kind": "regression", "client.lr": 0.02},
    ),
    "masks": (masks, PIXELS),
    "masks of volumes": (lambda: toys.volumes(masks()), PIXELS),
}


TRIED = TASKS if os.environ.get("FEDNF_FULL") else ("regression", "masks")


@pytest.mark.parametrize("name", TRIED)
def test_flwr_run_ends_with_the_same_model(flower_home, tmp_path, monkeypatch, name):
    make, flat = TASKS[name]
    data = make()
    (tmp_path / "mine.py").write_text(MINE)
    toys.stranger(tmp_path)
    monkeypatch.chdir(tmp_path)
    arrays = {"images": data.train.images, "test_images": data.test.images}
    arrays |= {"labels": data.train.labels, "test_labels": data.test.labels}
    named = np.array(data.classes)
    np.savez("clothes.npz", classes=named, **{k: v.numpy() for k, v in arrays.items()})
    flat = {**flat, "data.name": "mine.py:clothes", "partition.kind": "iid"}
    flat["data.options.path"] = str(tmp_path / "clothes.npz")
    flat |= {"engine": "sequential", "partition.clients": 3, "partition.held-out": 0.2}
    knobs = Experiment.from_flat({**(OWN if "network.kind" in flat else TINY), **flat})
    inline = run(knobs, Journal(tmp_path / "inline"))
    there = {"run.dir": str(tmp_path / "flower"), "run.callbacks": f"{tmp_path}/mine.py:Note"}
    Path("run.toml").write_text(to_toml({**knobs.to_flat(), **there}))
    flower.flwr_run(tmp_path / "run.toml", 3, 2, flower_home)
    journal = Journal(tmp_path / "flower")
    found = flower.wait_for(journal, 60)
    assert found["model_sha256"] == inline["model_sha256"]
    metric = f"final_{inline['metric'].replace('-', '_')}"
    assert found[metric] == inline[metric]
    assert (journal.folder / "told.txt").read_text() == "0 1 2 "
    scored = [one for one in journal.clients() if any(k.startswith("personal_") for k in one)]
    assert len(scored) == 4
