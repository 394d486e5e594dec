"""Runs of every task on real images: what they leave behind, and that it is right."""

import html

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.report.page import write
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import load, shares
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.server.watching.callback import Callback
from fl.simulation import run
from fl.tasks import objective
from fl.training.parameters import build_network
from tests.fl.tasks import toys


def outputs_of(knobs: Experiment, journal: Journal):
    """Return what the final network says of all test images, and their labels."""
    network = build_network(knobs, torch_stream(9, "another"))
    network.load(load_file(journal.folder / "model.safetensors"))
    data = load(knobs.data.name)
    with torch.no_grad():
        return network.module.eval()(data.inputs(data.test.images)), data.test.labels


def regression(monkeypatch, tiny, label=toys.brightness, **flat):
    classes = ("brightness",) if label is toys.brightness else ("mean", "deviation")
    name = toys.catalogued(monkeypatch, f"numbers-{len(classes)}", toys.relabelled(label, classes))
    return tiny({"data.name": name, "task.kind": "regression", "client.lr": 0.02, **flat})


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    shares._load.cache_clear()


@pytest.mark.parametrize("label", [toys.brightness, toys.moments])
def test_a_regression_is_told_by_its_mae(monkeypatch, tiny, tmp_path, label):
    knobs = regression(monkeypatch, tiny, label, **{"partition.held-out": 0.2})
    journal = Journal(tmp_path / "run")
    result = run(knobs, journal)
    outputs, labels = outputs_of(knobs, journal)
    targets = labels.double().reshape(len(labels), -1)
    errors = (outputs.double() - targets).abs().mean(0)
    line = journal.rounds()[-1]
    assert line["test_mae"] == result["final_mae"] == pytest.approx(float(errors.mean()), rel=1e-6)
    if len(errors) > 1:
        assert line["test_mae_per_class"] == pytest.approx(errors.tolist(), rel=1e-6)
    else:
        assert "test_mae_per_class" not in line
    squares = (outputs.double() - targets).square().sum(0)
    r2 = 1 - squares / (targets - targets.mean(0)).square().sum(0)
    assert line["test_r2"] == pytest.approx(float(r2.mean()), rel=1e-6)
    assert line["test_loss"] == pytest.approx(float(squares.mean()) / len(labels), rel=1e-5)
    assert not [key for key in line | result if "accuracy" in key]
    best = min(journal.rounds(), key=lambda line: line["test_mae"])
    assert (result["best_round"], result["best_chosen_by"]) == (best["round"], "test_mae")
    median = (targets - targets.median(0).values).abs().mean()
    assert journal.header()["chance"] == pytest.approx(float(median), rel=0.02)
    assert journal.header()["metric"] == {
        "name": "mae", "title": "MAE", "larger": False, "fraction": False
    }  # fmt: skip
    accounts = [one for one in journal.clients() if one["round"] == line["round"]]
    held = np.array([one["held_out"] for one in accounts])
    own = np.array([one["personal_mae"] for one in accounts])
    assert line["personal_mae_held_out"] == pytest.approx((held * own).sum() / held.sum())
    assert all("personal_correct" not in one for one in accounts)


def test_labels_of_several_are_scored_by_macro_f1(monkeypatch, tiny, tmp_path):
    data = toys.relabelled(toys.attributes, toys.ATTRIBUTES)
    flat = {"data.name": toys.catalogued(monkeypatch, "attributes", data), "rounds": 3}
    flat |= {"task.kind": "multilabel", "task.metrics": "macro-f1,auc", "client.batch-size": 4}
    knobs, journal = tiny(flat), Journal(tmp_path / "run")
    result = run(knobs, journal)
    outputs, labels = outputs_of(knobs, journal)
    answers, there = outputs > 0, labels > 0
    f1 = 2 * (answers & there).sum(0) / (answers.sum(0) + there.sum(0)).clamp(min=1)
    assert result["final_macro_f1"] == pytest.approx(float(f1.mean()), rel=1e-6)
    line = journal.rounds()[-1]
    assert line["test_auc"] > 0.7
    assert len(line["test_auc_per_class"]) == 3
    share = there.double().mean(0)
    assert journal.header()["chance"] == pytest.approx(float((2 * share / (1 + share)).mean()))


def test_classification_names_every_metric_that_is_asked_for(tiny, tmp_path):
    names = "balanced-accuracy, accuracy, top-5, macro-f1, auc"
    flat = {"task.metrics": names, "task.logit-adjustment": "fedlc:1", "partition.held-out": 0.2}
    journal = Journal(tmp_path / "run")
    result = run(tiny({**flat, "task.class-weights": "balanced", "rounds": 1}), journal)
    line = journal.rounds()[-1]
    keys = {"balanced_accuracy", "accuracy", "top_5", "macro_f1", "auc"}
    assert keys <= {key.removeprefix("test_") for key in line}
    assert result["best_chosen_by"] == "test_balanced_accuracy"
    assert 0 < line["personal_balanced_accuracy_held_out"] <= 1
    assert journal.header()["chance"] == pytest.approx(0.1)


def test_what_is_asked_by_default_is_told_as_ever(tiny, tmp_path):
    journal = Journal(tmp_path / "run")
    result = run(tiny({"rounds": 1, "partition.held-out": 0.2}), journal)
    told = ("test", "validation", "global", "personal")
    assert [key for key in journal.rounds()[0] if key.startswith(told)] == [
        "test_loss", "test_accuracy", "test_right", "validation_accuracy",
        "global_accuracy_held_out", "personal_accuracy_held_out", "personal_accuracy_mean",
        "personal_accuracy_worst_tenth", "personal_accuracy_spread",
    ]  # fmt: skip
    assert {"final_accuracy", "best_accuracy", "personal_accuracy_held_out"} < result.keys()
    assert result["metric"] == "accuracy"
    assert {"global_correct", "personal_correct"} < journal.clients()[0].keys()


ENGINES = {
    "sequential": {"engine": "sequential"},
    "eager": {"engine": "vectorized", "vectorized.lanes": 2, "vectorized.level": "eager"},
    "traced": {"engine": "vectorized", "vectorized.lanes": 2, "vectorized.level": "traced"},
}


@pytest.mark.slow
@pytest.mark.parametrize("volumes", [False, True], ids=["images", "volumes"])
def test_a_stranger_s_masks_train_alike_in_every_engine(monkeypatch, tiny, tmp_path, volumes):
    data = toys.relabelled(toys.bright, ("dark", "bright"))
    data = toys.volumes(data) if volumes else data
    path = toys.stranger(tmp_path)
    flat = {
        "data.name": toys.catalogued(monkeypatch, f"masks-{volumes}", data),
        "task.kind": f"{path}:Pixelwise",
        "task.options.dark": 0.5,
        "partition.kind": "iid",
        "client.batch-size": 4,
        "rounds": 1,
        "network.depth": 3,
        "partition.held-out": 0.2,
        "signals.every": 1,
    }
    monkeypatch.setattr(
        "fl.training.parameters.build",
        lambda network, recipe, shape, classes, generator, make: pixel_network(
            path, shape, classes
        ),
    )
    lines, models = [], []
    for name, engine in ENGINES.items():
        journal = Journal(tmp_path / name)
        knobs = Experiment.from_flat({**tiny().to_flat(), **flat, **engine})
        run(knobs, journal)
        lines.append(journal.rounds()[-1])
        models.append(load_file(journal.folder / "model.safetensors"))
    outputs, labels = outputs_of(knobs, journal)
    answers = outputs.argmax(1)
    both = (answers * labels).flatten(1).sum(1)
    dice = (2 * both + 1) / ((answers + labels).flatten(1).sum(1) + 1)
    assert lines[-1]["test_dice"] == pytest.approx(float(dice.double().mean()), rel=1e-6)
    assert lines[0]["test_loss"] < 0.95 * journal.rounds()[0]["test_loss"]
    assert 0 < lines[0]["personal_dice_held_out"] <= 1
    for model in models[1:]:
        for name, tensor in models[0].items():
            torch.testing.assert_close(model[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_stranger_s_loss_and_metric_are_the_same_in_processes_and_after_a_break(tiny, tmp_path):
    path = toys.losses(tmp_path)
    flat = {"task.loss": f"{path}:hinge", "task.metrics": f"{path}:sure, accuracy"}
    flat |= {"partition.held-out": 0.2, "engine": "sequential", "sampling.clients": 3}
    knobs, found = tiny(flat), {}
    for workers in (1, 2):
        journal = Journal(tmp_path / str(workers))
        result = run(knobs, journal, workers=workers)
        found[workers] = (
            result["model_sha256"],
            [(line["test_sure"], line["personal_sure_held_out"]) for line in journal.rounds()],
        )
    assert found[1] == found[2]

    class Stop(Callback):
        def round_done(self, line):
            if line["round"] == 1:
                raise KeyboardInterrupt

    journal = Journal(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, callbacks=[Stop()])
    assert run(knobs, journal, resume=True)["model_sha256"] == found[1][0]


def pixel_network(path, shape, classes):
    names: dict = {}
    exec(path.read_text(), names)
    torch.manual_seed(3)
    return names["Net"](shape, classes)


def test_a_report_follows_the_metric(monkeypatch, tiny, tmp_path):
    for seed in (1, 2):
        for lr in (0.0001, 0.02):
            flat = {"seed": seed, "client.lr": lr, "rounds": 1, "partition.held-out": 0.2}
            knobs = regression(monkeypatch, tiny, **flat)
            run(knobs, Journal(tmp_path / f"{seed}-{lr}"))
    page = write(tmp_path).read_text()
    assert "accura" not in page.lower().replace("how accurate", "")
    assert "smaller is better" in page
    assert "No verdicts: with 5 seeds or more there are; here are 2." in page
    assert (tmp_path / "figures" / "mae.svg").is_file()
    assert "the own network's MAE less the shared one's; smaller is better" in html.unescape(page)
    assert "final_mae_mean" in (tmp_path / "summary.csv").read_text()


def test_runs_of_several_metrics_make_no_report(monkeypatch, tiny, tmp_path):
    run(regression(monkeypatch, tiny, rounds=1), Journal(tmp_path / "a"))
    run(tiny({"rounds": 1}), Journal(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"other primary metrics \(MAE, accuracy\)"):
        write(tmp_path)


def test_labels_of_another_task_are_refused_at_once(monkeypatch, tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"data.name=fashion-mnist-small: labels are torch.int64"):
        run(tiny({"task.kind": "regression"}), Journal(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    knobs = regression(monkeypatch, tiny).replace({"task.kind": "classification"})
    with pytest.raises(ConfigError, match="expected one class"):
        run(knobs, Journal(tmp_path / "run"))


def test_equal_experiments_have_one_objective(tiny):
    assert objective(tiny()) is objective(tiny({"client.lr": 0.5}))
