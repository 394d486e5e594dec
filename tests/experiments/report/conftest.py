"""Run folders written by hand: a few numbers that one can check, and no training."""

import json
from pathlib import Path

import pytest

from fl.config import Experiment
from fl.config.parsing import Value

DEAL = "0" * 64


def _write_run(
    folder: Path,
    accuracies: list[float],
    knobs: dict[str, Value] | None = None,
    header: dict | None = None,
    finished: bool = True,
    refused: tuple[str, ...] = (),
    single_value_steps: int = 0,
    losses: tuple[float | None, ...] = (1.25,),
    gradient_norm: float | None = None,
) -> None:
    """Write a run with these test accuracies, the first before any training.

    The untrained loss is 2.0; of `losses`, the clients' after each round, the last is repeated.
    """
    folder.mkdir(parents=True)
    rounds = len(accuracies) - 1
    experiment = Experiment.from_flat({"rounds": rounds if finished else 9, **(knobs or {})})
    about = {
        "identity": experiment.identity,
        "knobs": experiment.to_flat(),
        "command": "fednf run",
        "runtime": "inline",
        "version": "0.1.0",
        "code_sha256": "c" * 64,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "numpy": "2.4.6", "flwr": "1.41.0"},
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2},
        "data_sha256": "d" * 64,
        "deal_sha256": DEAL,
        "chance": 0.1,
        **(header or {}),
    }
    lines = [
        {
            "round": number,
            "test_loss": 1.5 if number else 2.0,
            "test_accuracy": accuracy,
            "seconds": 2.0,
            "eval_seconds": 0.5,
            "train_loss": losses[min(number, len(losses)) - 1] if number else None,
            "asked": 10,
            "replied": 10,
            "refused": [{"partition": 3, "reason": reason} for reason in refused if number == 1],
            "train_seconds": 1.5 * (number > 0),
            "images": 300 * (number > 0),
            "single_value_steps": 0,
            "bytes_up": 1000 * (number > 0),
            "bytes_down": 2000 * (number > 0),
        }
        for number, accuracy in enumerate(accuracies)
    ]
    clients = [
        {
            "round": number,
            "partition": 0,
            "steps": 50,
            "single_value_steps": single_value_steps,
            **({} if gradient_norm is None else {"gradient_norm": gradient_norm * number}),
        }
        for number in range(1, rounds + 1)
    ]
    (folder / "experiment.json").write_text(json.dumps(about))
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "clients.jsonl").write_text("".join(json.dumps(line) + "\n" for line in clients))
    if finished:
        result = {
            "rounds": rounds,
            "final_accuracy": accuracies[-1],
            "final_loss": 1.5,
            "best_accuracy": max(accuracies),
            "best_round": accuracies.index(max(accuracies)),
            "model_sha256": "e" * 64,
            "refused": len(refused),
            "images_per_second": 200.0,
            "images": 300 * rounds,
            "train_seconds": 1.5 * rounds,
            "eval_seconds": 0.5 * rounds,
            "bytes_up": 1000 * rounds,
            "bytes_down": 2000 * rounds,
            "single_value_steps": single_value_steps * rounds,
        }
        (folder / "result.json").write_text(json.dumps(result))


IID: dict[str, Value] = {"partition.kind": "iid"}
SKEWED: dict[str, Value] = {"partition.kind": "dirichlet", "partition.alpha": 0.1}
PULLED: dict[str, Value] = {**SKEWED, "strategy.kind": "fedprox", "strategy.mu": 0.1}


def _write_study(folder: Path) -> Path:
    """Write 3 recipes x 3 conditions x 2 seeds; ZC-Swish leads where data are iid."""
    finals = {
        "batchnorm": {"iid": (0.50, 0.60), "skewed": (0.30, 0.40), "pulled": (0.31, 0.40)},
        "zc-swish": {"iid": (0.70, 0.80), "skewed": (0.35, 0.45), "pulled": (0.30, 0.46)},
        "salunet": {"iid": (0.52, 0.58), "skewed": (0.36, 0.38), "pulled": (0.36, 0.38)},
    }
    conditions = {"iid": IID, "skewed": SKEWED, "pulled": PULLED}
    for recipe, by_condition in finals.items():
        for name, pair in by_condition.items():
            for seed, final in enumerate(pair, start=1):
                _write_run(
                    folder / f"{recipe}-{name}-{seed}",
                    [0.1, final + 0.02, final],
                    {"recipe": recipe, "seed": seed, **conditions[name]},
                )
    study = {"name": "trial", "question": "Who holds up?", "command": "fednf study trial"}
    (folder / "study.json").write_text(json.dumps(study))
    return folder


@pytest.fixture(scope="session")
def write_run():
    """Return a function that writes a run with given accuracies, the first before training."""
    return _write_run


@pytest.fixture(scope="session")
def write_study():
    """Return a function that writes a study of 18 runs into a folder."""
    return _write_study


@pytest.fixture
def study(tmp_path):
    """Write a study of 18 runs that a test may change."""
    return _write_study(tmp_path / "study")
