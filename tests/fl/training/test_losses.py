"""A user's loss is asked for a few examples before a run begins."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import load
from fl.training.checks.losses import check_loss
from fl.training.parameters import build_network


def mean(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels)


def summed(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none").sum(0, keepdim=True)


def of_each_output(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, 10) - outputs


def forgotten(outputs: Tensor, labels: Tensor) -> None:
    F.cross_entropy(outputs, labels)


def single(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def broken(outputs: Tensor, labels: Tensor) -> Tensor:
    raise RuntimeError("which the run will tell")


def checked(loss: object) -> None:
    knobs = Experiment.from_flat(
        {"network.depth": 3, "network.width": 4, "task.loss": loss, "device": "cpu"}
    )
    network = build_network(knobs, torch.Generator())
    before = {name: tensor.clone() for name, tensor in network.state().items()}
    check_loss(network, load(knobs), knobs)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state().items())


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (mean, "of the shape ()"),
        (summed, "of the shape (1,)"),
        (of_each_output, "of the shape (5, 10)"),
        (forgotten, "None"),
    ],
)
def test_a_loss_that_is_not_one_number_an_example_is_refused(loss, found):
    with pytest.raises(ConfigError, match=r"\(.*test_losses\.py:\d+\): the loss") as error:
        checked(loss)
    assert f":{loss.__name__} (" in str(error.value)
    assert f"the loss of 5 examples is {found}, expected the shape (5,)" in str(error.value)


def test_other_losses_are_let_pass():
    for loss in (single, broken, "auto"):
        checked(loss)
