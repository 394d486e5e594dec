"""The code of docs/guide/own/loss-and-metric.md runs as it stands."""

import re
import sys
from pathlib import Path

import pytest
import torch

import fl
from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run
from fl.tasks import objective

PAGE = Path(fl.__file__).parent.parent / "docs" / "guide" / "own" / "loss-and-metric.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
FILES = {
    found[1]: block for block in BLOCKS if (found := re.match(r"# (\w+\.py)\n", block)) is not None
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_a_loss_and_a_metric_of_a_file(folder, tiny):
    (program,) = (block for block in BLOCKS if "fl.run" in block)
    small = "knobs = {**small, "
    names: dict = {"small": tiny({"seed": 3}).to_flat()}
    exec(program.replace("knobs = {", small, 1), names)
    lines = Journal(folder / "runs" / "focal").rounds()
    assert len(lines) == 4
    assert names["result"]["final_brier"] == lines[-1]["test_brier"] < lines[0]["test_brier"]
    best = min(lines, key=lambda line: line["test_brier"])
    assert names["result"]["best_round"] == best["round"]


def test_a_metric_that_is_no_mean(folder, tiny):
    knobs = tiny({"task.metrics": "precision.py:Precision", "rounds": 1})
    result = run(knobs, Journal(folder / "run"))
    assert 0 <= result["final_precision"] <= 1


def test_a_task_of_its_own(folder):
    flat = {"task.kind": "pixels.py:Pixels", "task.options.dark": 0.2}
    found = objective(Experiment.from_flat(flat))
    masks = torch.randint(2, (3, 4, 4))
    assert found.loss(torch.zeros(3, 2, 4, 4), masks).shape == (3,)
    assert found.task.dark == 0.2
    assert [metric.name for metric in found.metrics] == ["macro_f1", "accuracy"]
    with pytest.raises(ValueError, match="expected masks"):
        found.task.check(torch.tensor([1]), 2)
