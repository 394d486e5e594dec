"""The gradient of every task is that of its loss as a textbook writes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl.config import Client, Task
from fl.tasks.choice import _made
from fl.training.loop import Training, train_task
from fl.training.parameters import FlatNetwork
from fl.vectorized import scheduler
from fl.vectorized.gradients import Examples, Gradients
from fl.vectorized.tracing import TracedGradients
from tests.fl.tasks.toys import PIXELWISE

CPU = torch.device("cpu")
CLASSES, WEIGHTS = 4, torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)


def made(**knobs):
    return _made(Task(**knobs), None, (), None, None)


def held(outputs, labels):
    """A loss that holds a tensor, as a user's may."""
    return WEIGHTS[labels] * -outputs.log_softmax(1).gather(1, labels[:, None])[:, 0]


def of_a_user():
    return _made(Task(loss="file.py:held"), None, (), held, None)


def stranger(dark: float = 0.5):
    names: dict = {}
    exec(PIXELWISE, names)
    return _made(
        Task(kind="pixels.py:Pixelwise"), names["Pixelwise"], (("dark", dark),), None, None
    )


def some(generator, count: int, kind: str):
    """Return labels of a kind, of which classes 1 and 2 alone are some client's."""
    match kind:
        case "classes":
            return torch.randint(1, 3, (count,), generator=generator)
        case "marks":
            return torch.randint(2, (count, CLASSES), generator=generator)
        case "number":
            return torch.randn(count, generator=generator, dtype=torch.float64)
        case "numbers":
            return torch.randn(count, CLASSES, generator=generator)
        case "images":
            return torch.randint(CLASSES, (count, 5, 5), generator=generator)
        case "volumes":
            return torch.randint(CLASSES, (count, 3, 5, 5), generator=generator)


def counts(own):
    return own.bincount(minlength=CLASSES).double()


def smoothed(z, y, own):
    return F.cross_entropy(z, y, WEIGHTS, label_smoothing=0.1, reduction="none").mean()


def fedlc(z, y, own):
    kept = counts(own) > 0
    shifted = z[:, kept] - 0.7 * counts(own)[kept] ** -0.25
    place = kept.long().cumsum(0) - 1
    return F.cross_entropy(shifted, place[y])


def fedrs(z, y, own):
    return F.cross_entropy(torch.where(counts(own) > 0, z, 0.3 * z), y)


def balanced(z, y, own):
    n = counts(own)
    weights = torch.where(n > 0, len(own) / (CLASSES * n), 0.0)
    return (weights[y] * F.cross_entropy(z, y, reduction="none")).mean()


def pixels(z, y, own):
    weights = torch.where(y > 0, 1.0, 0.5)
    return (weights * F.cross_entropy(z, y, reduction="none")).mean()


CASES = {
    "classification": (made, {}, "classes", lambda z, y, own: F.cross_entropy(z, y)),
    "smoothed": (
        made, {"label_smoothing": 0.1, "class_weights": "1,2,0.5,3"}, "classes", smoothed,
    ),
    "fedlc": (made, {"logit_adjustment": "fedlc:0.7"}, "classes", fedlc),
    "fedrs": (made, {"logit_adjustment": "fedrs:0.3"}, "classes", fedrs),
    "balanced": (made, {"class_weights": "balanced"}, "classes", balanced),
    "a user's": (
        of_a_user, {}, "classes",
        lambda z, y, own: F.cross_entropy(z, y, WEIGHTS, reduction="none").mean(),
    ),
    "multilabel": (
        made, {"kind": "multilabel"}, "marks",
        lambda z, y, own: F.binary_cross_entropy_with_logits(z, y.double()),
    ),
    "regression": (
        made, {"kind": "regression"}, "number", lambda z, y, own: F.mse_loss(z[:, 0], y),
    ),
    "targets": (
        made, {"kind": "regression"}, "numbers", lambda z, y, own: F.mse_loss(z, y.double()),
    ),
    "images": (stranger, {}, "images", pixels),
    "volumes": (stranger, {}, "volumes", pixels),
}  # fmt: skip


class Small(nn.Module):
    """A hidden layer, or a convolution of pixels or voxels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = {"images": nn.Conv2d, "volumes": nn.Conv3d}.get(kind)
        outputs = 1 if kind == "number" else CLASSES
        if self.conv:
            self.layers = nn.Sequential(self.conv(1, 3, 3, padding=1), nn.SiLU())
            self.last = self.conv(3, outputs, 1)
        else:
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.SiLU())
            self.last = nn.Linear(5, outputs)

    def forward(self, x):
        return self.last(self.layers(x))


def world(case: str, sizes: tuple[int, ...]):
    """Return an objective, a network, its textbook loss and clients' inputs and labels."""
    make, knobs, kind, textbook = CASES[case]
    generator = torch.Generator().manual_seed(5)
    shape = {"images": (5, 5), "volumes": (3, 5, 5)}.get(kind, (3, 3))
    torch.manual_seed(0)
    network = FlatNetwork(Small(kind).double(), CPU)
    data = [
        (
            torch.randn(size, 1, *shape, generator=generator, dtype=torch.float64),
            some(generator, size, kind),
        )
        for size in sizes
    ]
    return make(**knobs), network, textbook, data


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_textbook(case):
    objective, network, textbook, data = world(case, (6, 6, 6))
    wanted, losses = [], []
    for inputs, labels in data:
        loss = textbook(network.module(inputs), labels, labels)
        losses.append(float(loss.detach()))
        found = torch.autograd.grad(loss, list(network.module.parameters()))
        wanted.append(torch.cat([part.reshape(-1) for part in found]))
        own = objective.own and objective.own(labels, CLASSES)
        network.gradient.zero_()
        more = () if own is None else (own,)
        mean = objective.mean(network.module(inputs), labels, *more)
        mean.backward()
        assert float(mean.detach()) == pytest.approx(losses[-1], rel=1e-10)
        torch.testing.assert_close(network.gradient, wanted[-1], rtol=1e-10, atol=1e-12)
    owns = [objective.own(labels, CLASSES) for _, labels in data] if objective.own else [None]
    examples = Examples(
        torch.stack([inputs for inputs, _ in data]),
        torch.stack([labels for _, labels in data]),
        torch.full((3, 6), 1 / 6, dtype=torch.float64),
        torch.full((3,), 6.0, dtype=torch.float64),
        None if owns[0] is None else torch.stack(owns),
    )
    rows = network.weights.expand(3, -1).clone()
    in_lanes, gradients = Gradients(network, loss=objective.loss)(rows, {}, examples)
    torch.testing.assert_close(gradients, torch.stack(wanted), rtol=1e-10, atol=1e-12)
    assert in_lanes.tolist() == pytest.approx(losses, rel=1e-10)


class Begun:
    """A client's round that has begun."""

    def __init__(self, batches, own) -> None:
        self.batches, self.own, self.vectors, self.noise = batches, own, {}, None


class Local:
    """A client with examples of its own."""

    def __init__(self, start, objective, inputs, labels) -> None:
        self.start, self.objective, self.inputs, self.labels = start, objective, inputs, labels

    @property
    def steps(self) -> int:
        return -(-len(self.labels) // 4)

    def begin(self, network):
        network.weights.copy_(self.start)
        own = self.objective.own and self.objective.own(self.labels, CLASSES)
        return Begun(iter(zip(self.inputs.split(4), self.labels.split(4), strict=True)), own)

    def end(self, network, begun, outcome):
        return network.weights.clone(), outcome.loss

    def fail(self, error):
        raise error


TRACED_AT_ONCE = ("fedlc", "a user's", "images")
"""The others take as long, and differ less."""


def ways():
    for case in CASES:
        yield pytest.param(case, False, id=case)
        marks = () if case in TRACED_AT_ONCE else pytest.mark.slow
        yield pytest.param(case, True, id=f"{case}-traced", marks=marks)


@pytest.mark.parametrize(("case", "traced"), list(ways()))
def test_lanes_train_as_one_client_after_another(case, traced):
    """Clients of unequal sizes, in two lanes, so that lanes change hands and batches are padded."""
    objective, network, _, data = world(case, (9, 4, 7, 10, 3))
    tasks = [Local(network.weights.clone(), objective, *one) for one in data]
    how = Training(Client(lr=0.1), objective=objective)
    alone = [train_task(network, task, how) for task in tasks]
    program = Gradients(network, loss=objective.loss)
    if traced:
        program = TracedGradients(network, False, 2, False, loss=objective.loss)
    found = dict(scheduler.train_in_lanes(network, tasks, how, program, 2, (1, 2, 3, 4)))
    if traced:
        assert all(program.passes.values())
    for place, (weights, loss) in enumerate(alone):
        torch.testing.assert_close(found[place][0], weights, rtol=1e-10, atol=1e-10)
        assert found[place][1] == pytest.approx(loss, rel=1e-6)


def test_a_loss_that_is_not_one_an_example_is_told():
    def mean(outputs, labels):
        return outputs.mean()

    objective = _made(Task(), None, (), mean, None)
    with pytest.raises(ValueError, match=r"shape \(\), expected one for each of 3 examples"):
        objective.mean(torch.zeros(3, 2), torch.zeros(3).long())


def test_evaluation_knows_no_client():
    labels, outputs = torch.tensor([1, 2, 1]), torch.randn(3, CLASSES)
    for knobs in ({"logit_adjustment": "fedlc:1"}, {"class_weights": "balanced"}):
        found = made(**knobs).total(outputs, labels)
        assert float(found) == pytest.approx(float(3 * F.cross_entropy(outputs, labels)))
