"""Figures of a report where there is nothing to divide by, to spread, or to tell apart."""

import json
from pathlib import Path

import pytest

from experiments.report import write
from tests.experiments.report.test_report import parse

CASES: dict[str, tuple[list[float], dict, dict]] = {
    "one round": ([0.1, 0.5], {}, {}),
    "all right": ([1.0, 1.0, 1.0], {}, {"test_accuracy_per_class": [1.0, 1.0]}),
    "all wrong": ([0.0, 0.0], {}, {}),
    "one class right, one wrong": ([0.5, 0.5], {}, {"test_accuracy_per_class": [1.0, 0.0]}),
    "classes without examples": ([0.5, 0.5], {}, {"test_accuracy_per_class": [None, 1.0]}),
    "losses that are no numbers": ([0.1, 0.1], {}, {"test_loss": None, "train_loss": None}),
    "losses of a network that diverged": ([0.1, 0.1], {}, {"test_loss": 3e38, "train_loss": 3e38}),
    "nobody replied": ([0.1, 0.1], {}, {"replied": 0, "images": 0, "train_loss": None}),
    "nobody asked": ([0.1, 0.1], {}, {"asked": 0, "replied": 0, "images": 0, "train_loss": None}),
    "no time passed": ([0.1, 0.2], {}, dict.fromkeys(("seconds", "train_seconds"), 0.0)),
    "guessing is always right": ([1.0, 1.0], {"chance": 1.0}, {}),
    "guessing is never right": ([0.0, 1.0], {"chance": 0.0}, {}),
    "nobody knows what guessing gives": ([0.0, 1.0], {"chance": None}, {}),
}
"""Accuracies, what the header says, and what each round says."""


def told(folder: Path, values: dict) -> None:
    """Let each round of a run say other values."""
    path = folder / "rounds.jsonl"
    lines = [{**json.loads(line), **values} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_report_divides_by_nothing_that_can_be_zero(tmp_path, write_run, seeds):
    for name, (accuracies, header, values) in CASES.items():
        for seed in range(seeds):
            knobs = {"seed": seed, "client.lr": 0.01 * (1 + list(CASES).index(name))}
            folder = tmp_path / f"{name}-{seed}"
            write_run(folder, accuracies, knobs, header)
            told(folder, values)
    words = parse(write(tmp_path)).lower().split()
    assert not {"nan", "nan%", "inf", "-inf", "none"} & set(words)


def test_accuracies_of_zero_can_be_drawn(tmp_path, write_run):
    write_run(tmp_path / "a", [0.0, 0.0])
    assert "0.0%" in parse(write(tmp_path))
