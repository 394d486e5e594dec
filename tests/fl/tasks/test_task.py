"""What a task says of labels, what guessing gives, and what the knobs choose."""

import numpy as np
import pytest
import torch

from fl.config import Experiment, Task
from fl.config.parsing import ConfigError
from fl.data import deal, shares
from fl.tasks import METRICS, PLAIN, objective
from fl.tasks.multilabel import Multilabel
from fl.tasks.regression import Regression
from fl.tasks.task import Task as Seam
from tests.fl.tasks import toys


def chosen(**knobs):
    flat = {f"task.{key.replace('_', '-')}": value for key, value in knobs.items()}
    return objective(Experiment.from_flat(flat))


def test_the_default_is_what_always_was():
    assert objective(Experiment()) is PLAIN
    assert PLAIN.mean is torch.nn.functional.cross_entropy
    assert Experiment().identity.startswith("1fa6304268a5b6a3")  # as before there were tasks
    assert Experiment.from_flat({"task.label-smoothing": 0.1}).identity != Experiment().identity


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_has_a_name_and_a_value(kind):
    names = ",".join(METRICS[kind])
    metrics = chosen(kind=kind, metrics=names).metrics
    assert [metric.name for metric in metrics] == [
        name.replace("-", "_") for name in names.split(",")
    ]
    assert all(metric.title for metric in metrics)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"metrics": "acuracy"}, "task.metrics=acuracy: no such metric; did you mean accuracy?"),
        ({"metrics": "mae"}, "task.metrics=mae: no such metric"),
        ({"metrics": "accuracy,accuracy"}, "two metrics have one name"),
        ({"logit_adjustment": "fedlc"}, "fedlc:1 or fedrs:0.5"),
        ({"logit_adjustment": "fedlc:-1"}, "should be none, fedlc:τ or fedrs:α"),
        ({"class_weights": "1,x"}, "should be none, balanced or numbers"),
        ({"kind": "regression", "label_smoothing": 0.1}, "is for the loss of task.kind=classif"),
        ({"label_smoothing": 0.1, "logit_adjustment": "fedlc:1"}, "choose one of them"),
        ({"kind": "regresion"}, "classification"),
    ],
)
def test_impossible_knobs_are_one_line(knobs, message):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        chosen(**knobs)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["right", "loss"])
def test_a_metric_can_t_have_the_name_of_something_else_in_a_line(tmp_path, name):
    path = tmp_path / "own.py"
    path.write_text(f"def {name}(outputs, labels):\n    return labels.float()\n")
    knobs = Experiment.from_flat({"task.metrics": f"{path}:{name}"})
    with pytest.raises(ConfigError, match=f"a metric is named {name}, and test_{name} in"):
        objective(knobs)


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "message"),
    [
        ("classification", torch.tensor([0, 3]), 3, "labels run from 0 to 3, but there are 3"),
        ("classification", torch.zeros(2, 2).long(), 3, "of shape (2, 2), expected one class"),
        ("classification", torch.zeros(2), 3, "labels are torch.float32"),
        ("multilabel", torch.zeros(2).long(), 3, "expected (examples, 3)"),
        ("multilabel", torch.full((2, 3), 2), 3, "other than 0 and 1"),
        ("regression", torch.zeros(2).long(), 1, "labels are torch.int64, expected floats"),
        ("regression", torch.zeros(2, 3), 1, "expected (examples, 1)"),
        ("regression", torch.tensor([0.0, float("nan")]), 1, "not finite"),
    ],
)
def test_labels_of_another_task_are_refused(kind, labels, classes, message):
    task = chosen(kind=kind).task
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        task.check(labels, classes)
    assert message in str(caught.value)


def test_weights_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"task\.class-weights has 2 numbers, but there are 3"):
        chosen(class_weights="1,2").task.check(torch.tensor([0, 2]), 3)


def test_a_deal_sees_a_class_in_every_label():
    masks = torch.tensor([[[0, 0], [2, 2]], [[1, 1], [1, 2]]])
    assert Seam().classes_for_deal(masks).tolist() == [0, 1]
    assert Seam().classes_for_deal(torch.tensor([3, 1])).tolist() == [3, 1]
    numbers = torch.arange(100.0).flip(0)
    assert np.bincount(Regression().classes_for_deal(numbers)).tolist() == [10] * 10
    assert Regression().classes_for_deal(torch.zeros(5, 2)).tolist() == [9] * 5
    marks = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 0]])
    assert Multilabel().classes_for_deal(marks).tolist() == [1, 0, 3, 2, 1]


def test_dirichlet_deals_numbers_by_their_tenths(monkeypatch, tiny):
    data = toys.relabelled(toys.brightness, ("brightness",))
    name = toys.catalogued(monkeypatch, "dealt-numbers", data)
    knobs = tiny({"data.name": name, "task.kind": "regression", "partition.alpha": 0.05})
    means = [float(data.train.labels[part].mean()) for part in deal(knobs)]
    even = knobs.replace({"partition.kind": "iid"})
    evenly = [float(data.train.labels[part].mean()) for part in deal(even)]
    shares._load.cache_clear()
    assert np.std(means) > 3 * np.std(evenly)


LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("metric", "guess"),
    [
        ("accuracy", 0.3),
        ("top-5", 0.8),
        ("balanced-accuracy", 1 / 7),
        ("macro-f1", (2 * 3 / 13) / 7),
        ("auc", 0.5),
    ],
)
def test_guessing_is_the_best_constant_answer(metric, guess):
    assert chosen(metrics=metric).guess(LABELS, 7) == pytest.approx(guess)


def test_guessing_a_number_is_its_median_or_its_mean():
    labels = torch.tensor([0.0, 0.0, 1.0, 5.0, 9.0])
    assert chosen(kind="regression").guess(labels, 1) == pytest.approx((1 + 1 + 0 + 4 + 8) / 5)
    assert chosen(kind="regression", metrics="r2").guess(labels, 1) == pytest.approx(0)


def test_of_a_stranger_s_task_nobody_knows_what_guessing_gives():
    class Theirs(Seam):
        def metrics(self):
            return ["accuracy"]

    from fl.tasks.choice import _made

    found = _made(Task(kind="file.py:Theirs"), Theirs, (), None, None)
    assert found.guess(torch.tensor([0, 1]), 2) is None
    assert not found.ours


def test_components_from_a_file_are_loss_and_metric(tmp_path, tiny):
    path = toys.losses(tmp_path)
    flat = {"task.loss": f"{path}:hinge", "task.metrics": f"{path}:sure, accuracy"}
    found = objective(Experiment.from_flat(flat))
    outputs, labels = torch.eye(3) * 4, torch.arange(3)
    assert found.loss(outputs, labels).tolist() == pytest.approx([1 / 3] * 3)
    assert [metric.name for metric in found.metrics] == ["sure", "accuracy"]
    sums = found.primary.sums(outputs, labels)
    assert found.primary.value(sums) == pytest.approx(float(outputs.softmax(1)[0, 0]))
    assert objective(Experiment.from_flat(flat)) is found
    path.write_text(path.read_text().replace("(1 + ", "(2 + "))
    assert objective(Experiment.from_flat(flat)) is not found
