"""Metrics as sums: those of batches and of clients are added, and the value is the whole's."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

Outputs = Shaped[Tensor, "batch ..."]
Labels = Shaped[Tensor, "batch ..."]
Sums = Shaped[Tensor, "..."]
Masks = tuple[Bool[Tensor, "examples classes"], Bool[Tensor, "examples classes"]]


class Metric:
    """A score of a network's outputs, exact over any split into batches and clients.

    A subclass says what is summed up over a batch, and what sums come to:

    >>> class Within(Metric):
    ...     name, fraction = "within", True
    ...
    ...     def sums(self, outputs, labels):
    ...         near = (outputs[:, 0] - labels).abs() < 0.1
    ...         return torch.stack([near.sum(), torch.tensor(len(labels))])
    ...
    ...     def value(self, sums):
    ...         return float(sums[0]) / float(sums[1])
    """

    name: str = ""
    """Its key in files: `test_NAME`. Small letters, digits and underscores."""
    label: str = ""
    """Its name in tables and figures; empty: `name`."""
    larger: bool = True
    """Whether a larger value is a better one."""
    fraction: bool = False
    """Whether it goes from 0 to 1, and is written in per cent."""
    counts_right: ClassVar[bool] = False
    """Whether its sums are right answers and all answers, one an example."""
    add: Callable[[Sums, Sums], Sums] = staticmethod(torch.add)
    """Joins the sums of two parts of the data."""

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return what this metric needs to know of a batch; of one shape for all batches.

        Args:
            outputs: of the network, (batch, classes, ...).
            labels: (batch, ...).
        """
        raise NotImplementedError

    def value(self, sums: Sums) -> float:
        """Return the metric of all data whose sums these are; NaN where it is not defined."""
        raise NotImplementedError

    def right(self, outputs: Outputs, labels: Labels) -> Bool[Tensor, "batch ..."] | None:
        """Say of each answer whether it is right; None where that is no yes or no."""
        return None

    def per_class(self, sums: Sums) -> list[float] | None:
        """Return a value for each class, label or target; None where there is no such thing."""
        return None

    def shared(self, sums: Sums) -> Sums:
        """Return what of a client's sums is sent to the server: of one shape for all clients."""
        return sums

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Say what a client's shared sums can't hold, in a few words; None where they can be true.

        A count that is too large would outweigh all others. Without an override none is checked.

        Args:
            shared: what the client shares, of any shape.
            answers: how many answers of the network they can be of, at most.
        """
        return None

    def pooled(self, shares: Sequence[Sums]) -> float:
        """Return the metric of all clients whose shared sums these are; there is at least one."""
        return self.value(reduce(self.add, shares))

    @property
    def title(self) -> str:
        """Its name in tables and figures."""
        return self.label or self.name.replace("_", " ")


class Part(NamedTuple):
    """What a network's answers to one batch come to."""

    loss: float
    """The sum of its examples' losses."""
    sums: Sequence[Tensor]
    """Of each metric."""
    seconds: float = 0.0
    """Wall time."""
    right: Bool[Tensor, " batch"] | None = None
    """Of each example, where the primary metric says it."""


def joined(parts: Iterable[Part], metrics: Sequence[Metric]) -> tuple[float, list[Sums]]:
    """Return the sums of losses and of metrics over batches, which are at least one, in order."""
    loss, sums = 0.0, list[Tensor]()
    for part in parts:
        loss += part.loss
        both = zip(metrics, sums, part.sums, strict=True) if sums else ()
        sums = [metric.add(before, now) for metric, before, now in both] or list(part.sums)
    return loss, sums


def figures(loss: float, sums: Sequence[Sums], metrics: Sequence[Metric]) -> dict[str, object]:
    """Return a mean loss and all metrics by name; None where there is no value."""
    told: dict[str, object] = {"loss": _finite(loss)}
    told |= {m.name: _finite(m.value(found)) for m, found in zip(metrics, sums, strict=True)}
    for metric, found in zip(metrics, sums, strict=True):
        if len(values := metric.per_class(found) or []) > 1:
            told[f"{metric.name}_per_class"] = [_finite(value) for value in values]
    return told


def _finite(value: float) -> float | None:
    """Return a figure as it is, or None for an infinity or NaN, which JSON does not know."""
    return value if math.isfinite(value) else None


class PerExample(Metric):
    """The mean over all examples of a function (outputs, labels) -> (batch,).

    Args:
        function: of a user; its attributes `larger`, `fraction` and `label` are this metric's.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function, self.name = function, function.__name__
        self.label = getattr(function, "label", "")
        self.larger = bool(getattr(function, "larger", True))
        self.fraction = bool(getattr(function, "fraction", False))

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return Σ f and the number of examples."""
        found = self.function(outputs, labels)
        if found.shape != labels.shape[:1]:
            raise ValueError(
                f"{self.name} returns the shape {tuple(found.shape)}, expected a value for each "
                f"of {len(labels)} examples"
            )
        total = found.double().sum()
        return torch.stack([total, torch.full_like(total, len(labels))])

    def value(self, sums: Sums) -> float:
        """Return the mean."""
        return _ratio(sums[0], sums[1])

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a count that can't be, and of a fraction a sum larger than it."""
        total, count = shared
        return odd_counts(count, answers) or (odd_counts(total, count) if self.fraction else None)


class Accuracy(Metric):
    """The share of answers that are right: of examples, of pixels, or of yes and no by label."""

    name, fraction, counts_right = "accuracy", True, True

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return how many answers are right, and how many there are."""
        right = self.right(outputs, labels)
        return torch.stack([right.sum(), right.new_full((), right.numel(), dtype=torch.int64)])

    def right(self, outputs: Outputs, labels: Labels) -> Bool[Tensor, "batch ..."]:
        """Say it of each answer."""
        return (outputs > 0 if outputs.ndim == labels.ndim else outputs.argmax(1)) == labels

    def value(self, sums: Sums) -> float:
        """Return right answers over answers."""
        right, answers = sums.tolist()
        return right / answers if answers else float("nan")


class TopFive(Metric):
    """The share of examples whose class is among the five largest outputs.

    Of equal outputs, that of the later class counts as the larger, as in scikit-learn.
    """

    name, label, fraction = "top_5", "top-5 accuracy", True

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return how many are, and how many examples there are."""
        named = labels.unsqueeze(1)
        own = outputs.gather(1, named)
        places = torch.arange(outputs.shape[1], device=labels.device).view(
            -1, *(1,) * (outputs.ndim - 2)
        )
        above = (outputs > own) | ((outputs == own) & (places > named))
        near = (above.sum(1) < 5) & ~own.squeeze(1).isnan()
        return torch.stack([near.sum(), torch.tensor(near.numel()).to(labels.device)])

    def value(self, sums: Sums) -> float:
        """Return their share."""
        return _ratio(sums[0], sums[1])

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a count that can't be."""
        near, count = shared
        return odd_counts(count, answers) or odd_counts(near, count)


class _PerClass(Metric):
    """A mean over classes of what counts of them come to: right, answered and actual (3, C)."""

    fraction = True

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return for each class how often it is answered rightly, answered, and there."""
        answered, actual = decided(outputs, labels)
        return torch.stack([(answered & actual).sum(0), answered.sum(0), actual.sum(0)])

    def value(self, sums: Sums) -> float:
        """Return the mean over the classes that have a value."""
        found = [value for value in self.per_class(sums) if value == value]
        return sum(found) / len(found) if found else float("nan")

    def per_class(self, sums: Sums) -> list[float]:
        """Return each class's value; NaN where it has none."""
        raise NotImplementedError

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a count that can't be."""
        right, answered, actual = shared
        both = torch.minimum(answered, actual)
        return odd_counts(shared[1:], answers) or odd_counts(right, both)


class BalancedAccuracy(_PerClass):
    """The mean over classes of the share of a class's examples that are right (its recall)."""

    name, label = "balanced_accuracy", "balanced accuracy"

    def per_class(self, sums: Sums) -> list[float]:
        """Return each class's recall; NaN where it has no example."""
        return [_ratio(right, actual) for right, _, actual in sums.T.tolist()]


class MacroF1(_PerClass):
    """The mean over classes of F1 = 2 · right / (answered + actual).

    A class that is neither there nor answered has no F1.
    """

    name, label = "macro_f1", "macro-F1"

    def per_class(self, sums: Sums) -> list[float]:
        """Return each class's F1; NaN where it is neither there nor answered."""
        return [_ratio(2 * right, answered + actual) for right, answered, actual in sums.T.tolist()]


class MultilabelF1(MacroF1):
    """The mean over all labels of F1; that of a label neither there nor answered is 0."""

    def per_class(self, sums: Sums) -> list[float]:
        """Return each label's F1."""
        return [value if value == value else 0.0 for value in super().per_class(sums)]


def decided(outputs: Outputs, labels: Labels) -> Masks:
    """Return which classes are answered and which are there, a row an example or a pixel.

    Labels with a dimension less than outputs are classes, of which the largest output answers one.
    Others are yes or no for each label, and an output above 0 answers yes.
    """
    classes = outputs.shape[1]
    if outputs.ndim == labels.ndim:
        answered, actual = outputs > 0, labels > 0.5
        return rows(answered), rows(actual)
    named = torch.arange(classes, device=labels.device)
    return rows(outputs).argmax(1)[:, None] == named, labels.reshape(-1, 1) == named


def rows(outputs: Tensor) -> Tensor:
    """Return (batch, classes, *space) as (batch · space, classes)."""
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1])


def odd_counts(counts: Tensor, most: int | Tensor) -> str | None:
    """Name a count that is not from 0 to `most`, or no number; None where all are."""
    wrong = ~((counts >= 0) & (counts <= most))
    if not wrong.any():
        return None
    bound = torch.as_tensor(most).expand(counts.shape)[wrong][0]
    return f"a count of {float(counts[wrong][0]):g}, expected 0 to {float(bound):g}"


def _ratio(part: int | float | Tensor, whole: int | float | Tensor) -> float:
    return float(part) / float(whole) if whole else float("nan")
