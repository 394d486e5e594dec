"""Every metric is scikit-learn's on the whole set, however batches and clients split it."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.tasks.auc import AUC
from fl.tasks.metrics import Accuracy, BalancedAccuracy, MacroF1, MultilabelF1, PerExample, TopFive
from fl.tasks.regression import MAE, R2
from fl.tasks.task import as_metric

sk = pytest.importorskip("sklearn.metrics")

CLASSES = 7


def one_of_several(rng, count):
    scores = rng.normal(size=(count, CLASSES)).round(1)  # so that there are ties
    labels = rng.choice(CLASSES, count, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05, 0.0])
    return torch.from_numpy(scores).float(), torch.from_numpy(labels)


def marks(rng, count):
    scores = rng.normal(size=(count, 4)).round(1)
    return torch.from_numpy(scores).float(), torch.from_numpy(rng.integers(2, size=(count, 4)))


def numbers(rng, count):
    labels = 1e4 + rng.normal(size=(count, 3))
    outputs = labels + rng.normal(scale=[0.5, 1.0, 2.0], size=(count, 3))
    return torch.from_numpy(outputs), torch.from_numpy(labels)


def masks(rng, count):
    labels = torch.from_numpy(rng.integers(3, size=(count, 4, 5)))
    return torch.from_numpy(rng.normal(size=(count, 3, 4, 5))).float(), labels


def areas(y, scores):
    """Return the mean area over the classes that some and not all examples have."""
    found = [
        sk.roc_auc_score(there, score)
        for there, score in zip(y.T, scores.T, strict=True)
        if 0 < there.sum() < len(there)
    ]
    return np.mean(found) if found else math.nan


def of_classes(z, y):
    return areas(np.eye(CLASSES)[y], z.double().softmax(1).numpy())


def flat(z):
    return z.movedim(1, -1).flatten(0, -2).argmax(1).numpy()


def macro_f1(y, answers):
    return sk.f1_score(y, answers, average="macro", zero_division=0)


CASES = {
    "accuracy": (Accuracy, one_of_several, lambda z, y: sk.accuracy_score(y, z.argmax(1))),
    "top-5": (
        TopFive, one_of_several,
        lambda z, y: sk.top_k_accuracy_score(
            y, z, k=5, labels=range(CLASSES)
        ),
    ),
    "balanced-accuracy": (
        BalancedAccuracy, one_of_several, lambda z, y: sk.balanced_accuracy_score(y, z.argmax(1)),
    ),
    "macro-f1": (MacroF1, one_of_several, lambda z, y: macro_f1(y, z.argmax(1))),
    "auc": (AUC, one_of_several, of_classes),
    "accuracy of marks": (
        Accuracy, marks, lambda z, y: sk.accuracy_score(y.flatten(), (z > 0).flatten()),
    ),
    "macro-f1 of marks": (MultilabelF1, marks, lambda z, y: macro_f1(y, z > 0)),
    "auc of marks": (AUC, marks, lambda z, y: areas(y.numpy(), z.numpy())),
    "mae": (MAE, numbers, lambda z, y: sk.mean_absolute_error(y, z)),
    "r2": (R2, numbers, lambda z, y: sk.r2_score(y, z)),
    "accuracy of masks": (
        Accuracy, masks, lambda z, y: sk.accuracy_score(y.flatten(), flat(z)),
    ),
    "macro-f1 of masks": (MacroF1, masks, lambda z, y: macro_f1(y.flatten(), flat(z))),
}  # fmt: skip


def summed(metric, outputs, labels, cuts):
    """Return the sums of parts of the data, joined in an order that is not theirs."""
    edges = [0, *sorted(cuts), len(labels)]
    parts = [slice(a, b) for a, b in pairwise(edges) if a < b]
    sums = [metric.sums(outputs[part], labels[part]) for part in parts]
    total = sums[-1]
    for one in sums[:-1]:
        total = metric.add(total, one)
    return total


@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_a_metric_is_scikit_learn_s_over_any_split(case, data):
    make, world, wanted = CASES[case]
    count = data.draw(st.integers(2, 60))
    outputs, labels = world(np.random.default_rng(data.draw(st.integers(0, 2**32))), count)
    cuts = data.draw(st.lists(st.integers(0, count), max_size=6))
    metric = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are answered, and not there
        expected = float(wanted(outputs, labels))
    found = metric.value(summed(metric, outputs, labels, cuts))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_a_perfect_answer_is_the_best_value(case):
    make, world, _ = CASES[case]
    outputs, labels = world(np.random.default_rng(1), 40)
    if outputs.ndim > labels.ndim:
        outputs = torch.nn.functional.one_hot(labels, outputs.shape[1]).movedim(-1, 1).double()
    elif labels.dtype == torch.int64:
        outputs = 2.0 * labels - 1
    else:
        outputs = labels
    metric = make()
    assert metric.value(metric.sums(outputs, labels)) == pytest.approx(1.0 if metric.larger else 0)


def test_values_of_classes_are_scikit_learn_s():
    outputs, labels = one_of_several(np.random.default_rng(2), 50)
    answers = outputs.argmax(1)
    f1, recall = (metric.per_class(metric.sums(outputs, labels)) for metric in _both())
    known = [c for c in range(CLASSES) if (labels == c).any() or (answers == c).any()]
    assert [f1[c] for c in known] == pytest.approx(sk.f1_score(labels, answers, average=None))
    assert recall[:6] == pytest.approx(
        sk.recall_score(labels, answers, average=None, zero_division=0)[:6]
    )
    assert math.isnan(recall[6])
    numbers_, targets = numbers(np.random.default_rng(2), 50)
    assert R2().per_class(R2().sums(numbers_, targets)) == pytest.approx(
        sk.r2_score(targets, numbers_, multioutput="raw_values")
    )


def _both():
    return MacroF1(), BalancedAccuracy()


@pytest.mark.parametrize(("answer", "value"), [(2.0, 1.0), (3.0, 0.0)])
def test_r2_of_a_constant_is_as_in_scikit_learn(answer, value):
    labels, outputs = torch.full((4,), 2.0), torch.full((4, 1), answer)
    metric = R2()
    assert metric.value(summed(metric, outputs, labels, [1, 3])) == value
    assert sk.r2_score(labels, outputs[:, 0]) == value


def test_clients_of_auc_send_no_scores():
    outputs, labels = one_of_several(np.random.default_rng(3), 40)
    metric = AUC()
    halves = [metric.sums(outputs[part], labels[part]) for part in (slice(30), slice(30, 40))]
    shares = [metric.shared(sums) for sums in halves]
    assert [len(share) for share in shares] == [2, 2]
    wanted = (30 * metric.value(halves[0]) + 10 * metric.value(halves[1])) / 40
    assert metric.pooled(shares) == pytest.approx(wanted)
    alone = metric.shared(metric.sums(outputs[:1], labels[:1]))  # one example ranks nobody
    assert metric.pooled([*shares, alone]) == pytest.approx(wanted)
    assert math.isnan(metric.pooled([alone]))


def test_a_function_is_a_metric_by_its_mean():
    def near(outputs, labels):
        return ((outputs[:, 0] - labels[:, 0]).abs() < 0.3).float()

    near.fraction = True
    outputs, labels = numbers(np.random.default_rng(4), 30)
    metric = as_metric(near)
    assert (metric.name, metric.larger, metric.fraction) == ("near", True, True)
    wanted = float(near(outputs, labels).mean())
    assert metric.value(summed(metric, outputs, labels, [4, 9])) == pytest.approx(wanted)
    with pytest.raises(ValueError, match=r"near2 returns the shape \(\), expected a value for"):
        PerExample(_named("near2", lambda z, y: z.mean())).sums(outputs, labels)


def _named(name, function):
    function.__name__ = name
    return function


@pytest.mark.parametrize("thing", [3, object(), lambda z, y: z])
def test_what_is_no_metric_is_told(thing):
    with pytest.raises(ValueError, match=r"no metric|should be like mean_error"):
        as_metric(thing)
