"""A task: what is asked of a network. Whoever has another question writes a subclass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, Shaped
from torch import Tensor

from fl.tasks.metrics import Labels, Metric, Outputs, PerExample

Losses = Shaped[Tensor, " batch"]
Loss = Callable[..., Losses]
"""(outputs, labels) -> a loss for each example; with a client's own tensor as the third, if any."""


class Task:
    """What is asked of a network: a loss, metrics, and what a label is.

    A subclass needs a loss and its metrics:

    >>> class Ranges(Task):
    ...     def metrics(self):
    ...         return [within]
    ...
    ...     def loss(self, outputs, labels):
    ...         return (outputs[:, 0] - labels).abs()

    Its parameters of `__init__` are the knobs `task.options.NAME`.
    """

    def loss(self, outputs: Outputs, labels: Labels) -> Losses:
        """Return the loss of each example: (batch,).

        Lanes call this under `torch.vmap`: no shape and no branch may depend on values.

        Args:
            outputs: of the network, (batch, outputs, ...).
            labels: (batch, ...).
        """
        raise NotImplementedError

    def metrics(self) -> Sequence[Metric | type[Metric] | Callable | str]:
        """Return the metrics, the primary one first.

        Each is a `Metric`, the name of one of ours, or a function (outputs, labels) -> (batch,),
        whose mean is the metric.
        """
        raise NotImplementedError

    def own(self, labels: Labels, classes: int) -> Tensor | None:
        """Return what the loss has to know of a client's training labels; None for nothing.

        Training hands it to `loss` as a third argument; evaluation has none.
        """
        return None

    def outputs(self, classes: int) -> int:
        """Return how many outputs the network has for a data set of so many classes."""
        return classes

    def check(self, labels: Shaped[Tensor, "examples ..."], classes: int) -> None:
        """Refuse labels that are not this task's.

        Raises:
            ValueError: what is wrong with them, in one line.
        """

    def classes_for_deal(self, labels: Shaped[Tensor, "examples ..."]) -> Int[np.ndarray, "_"]:
        """Return the class of each example that a deal goes by, such as Dirichlet's.

        Whole numbers are classes; of a mask, the most frequent of its pixels is taken, the smallest
        of several; other numbers are sorted into tenths by the first number of each example.
        """
        if labels.dtype.is_floating_point:
            return tenths(labels.reshape(len(labels), -1)[:, 0].double().numpy())
        if labels.ndim == 1:
            return labels.numpy()
        return labels.reshape(len(labels), -1).long().mode(1).values.numpy()

    def constants(self, labels: Labels, classes: int) -> Sequence[Tensor]:
        """Return constant answers, of which the best one is what guessing gives.

        Each is the outputs of one example, (outputs, ...). None: nobody knows what guessing gives.
        """
        return ()


def tenths(values: np.ndarray) -> np.ndarray:
    """Return for each value in which tenth of all it is, from 0 to 9."""
    edges = np.quantile(values, np.linspace(0, 1, 11)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class Objective:
    """A task as training and evaluation use it: with the loss and the metrics that knobs choose."""

    task: Task
    loss: Loss
    """The loss of each example, for lanes."""
    mean: Callable[..., Tensor]
    """The mean loss over a batch, for training one client after another."""
    total: Callable[[Tensor, Tensor], Tensor]
    """The sum of losses over a batch, for evaluation."""
    metrics: tuple[Metric, ...]
    """The first is the primary one."""
    ours: bool = True
    """Whether the loss is in this package, whose version then says what it does."""
    own: Callable[[Tensor, int], Tensor | None] | None = None
    """As `Task.own`; None where the loss has to know nothing of a client."""
    primary: Metric = field(init=False)
    """The metric that chooses the best round: the first."""

    def __post_init__(self) -> None:
        """Set the primary metric."""
        object.__setattr__(self, "primary", self.metrics[0])

    def guess(self, labels: Labels, classes: int) -> float | None:
        """Return the primary metric of the best constant answer; None where that is not known."""
        metric = self.primary
        found = [
            metric.value(metric.sums(answer.expand(len(labels), *answer.shape), labels))
            for answer in self.task.constants(labels, classes)
        ]
        known = [value for value in found if value == value]
        return (max if metric.larger else min)(known) if known else None


def plain(task: Task, loss: Loss, metrics: Sequence[Metric], ours: bool = True) -> Objective:
    """Return the objective of a loss per example, from which its mean and its sum are taken."""

    def checked(outputs: Tensor, labels: Tensor, *own: Tensor) -> Tensor:
        losses = loss(outputs, labels, *own)
        if losses.shape != labels.shape[:1]:
            raise ValueError(
                f"the loss has the shape {tuple(losses.shape)}, expected one for each of "
                f"{len(labels)} examples"
            )
        return losses

    def mean(outputs: Tensor, labels: Tensor, *own: Tensor) -> Tensor:
        return checked(outputs, labels, *own).mean()

    def total(outputs: Tensor, labels: Tensor) -> Tensor:
        return checked(outputs, labels).sum()

    own = None if type(task).own is Task.own else task.own
    return Objective(task, loss, mean, total, tuple(metrics), ours, own)


def as_metric(found: object) -> Metric:
    """Return a metric of a `Metric`, a subclass of it, or a function (outputs, labels) -> (batch,).

    Raises:
        ValueError: it is none of these, or has no name that files can use.
    """
    if isinstance(found, type) and issubclass(found, Metric):
        found = found()
    elif not isinstance(found, Metric) and callable(found) and hasattr(found, "__name__"):
        found = PerExample(found)
    if not isinstance(found, Metric):
        raise ValueError(f"{found!r} is no metric: expected an fl.Metric or a function")
    if not (found.name.isidentifier() and found.name.islower()):
        raise ValueError(f"{type(found).__name__}.name={found.name!r} should be like mean_error")
    return found
