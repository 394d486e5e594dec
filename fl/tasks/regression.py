"""Numbers: squared error, MAE and R²."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fl.tasks.metrics import Labels, Metric, Outputs, Sums, odd_counts
from fl.tasks.task import Losses, Task


class Regression(Task):
    """One number or several for each example: labels are (batch,) or (batch, targets), floats.

    An example's loss is the mean over its targets of ``(ŷ - y)²``.
    """

    def metrics(self) -> Sequence[str]:
        """Return the mean absolute error, and R²."""
        return ["mae", "r2"]

    def loss(self, outputs: Outputs, labels: Labels) -> Losses:
        """Return the mean squared error of each example."""
        return _errors(outputs, labels).square().mean(-1)

    def check(self, labels: Tensor, classes: int) -> None:
        """Refuse labels that are not finite floats, one for each example and target.

        Raises:
            ValueError: what is wrong.
        """
        if not labels.dtype.is_floating_point:
            raise ValueError(f"labels are {labels.dtype}, expected floats")
        if labels.ndim > 2 or labels[0:1].numel() not in (0, classes):
            raise ValueError(
                f"labels have the shape {tuple(labels.shape)}, expected (examples, {classes})"
            )
        if not labels.isfinite().all():
            raise ValueError("labels have values that are not finite")

    def constants(self, labels: Labels, classes: int) -> Sequence[Tensor]:
        """Return the median and the mean of each target."""
        targets = labels.double().reshape(len(labels), -1)
        return [targets.quantile(0.5, dim=0), targets.mean(0)]


class MAE(Metric):
    """The mean absolute error, in the labels' own unit, over examples and targets."""

    name, label, larger = "mae", "MAE", False

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return Σ|ŷ - y| of each target, and the number of examples: (2, targets)."""
        errors = _errors(outputs.double(), labels).abs().sum(0)
        return torch.stack([errors, torch.full_like(errors, len(labels))])

    def value(self, sums: Sums) -> float:
        """Return the mean over the targets."""
        return _mean(self.per_class(sums))

    def per_class(self, sums: Sums) -> list[float]:
        """Return each target's error."""
        return (sums[0] / sums[1]).tolist()

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a count that can't be, or a negative sum of errors."""
        errors, counts = shared
        return odd_counts(counts, answers) or _negative(errors)


def _merged(first: Sums, second: Sums) -> Sums:
    """Join counts, means and squared deviations of two parts, without subtracting large squares.

    Source: Chan, Golub and LeVeque 1979, Updating Formulae and a Pairwise Algorithm.
    """
    (n, mean, squares, errors), (m, other, more, others) = first, second
    total = (n + m).clamp(min=1)
    apart = other - mean
    squares = squares + more + apart.square() * n * m / total
    return torch.stack([n + m, mean + apart * m / total, squares, errors + others])


class R2(Metric):
    """``R² = 1 - Σ(ŷ - y)² / Σ(y - ȳ)²``, the mean over targets.

    Of a target that is constant it is 1 where all is right, and else 0, as in scikit-learn.
    """

    name, label = "r2", "R²"
    add = staticmethod(_merged)

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return for each target: examples, ȳ, Σ(y - ȳ)² and Σ(ŷ - y)²: (4, targets)."""
        targets = labels.double().reshape(len(labels), -1)
        mean = targets.mean(0)
        errors = _errors(outputs.double(), labels).square().sum(0)
        squares = (targets - mean).square().sum(0)
        return torch.stack([torch.full_like(mean, len(labels)), mean, squares, errors])

    def value(self, sums: Sums) -> float:
        """Return the mean over the targets."""
        return _mean(self.per_class(sums))

    def per_class(self, sums: Sums) -> list[float]:
        """Return each target's R²."""
        _, _, squares, errors = sums
        constant = (errors == 0).to(errors)
        return torch.where(squares > 0, 1 - errors / squares, constant).tolist()

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a count that can't be, or a negative sum of squares."""
        counts, _, squares, errors = shared
        return odd_counts(counts, answers) or _negative(squares) or _negative(errors)


def _negative(sums: Sums) -> str | None:
    """Name a sum that is negative; one of errors beyond all bounds is none."""
    return f"a sum of {float(sums.min()):g}, expected 0 or more" if (sums < 0).any() else None


def _errors(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs - labels.to(outputs.dtype).reshape(outputs.shape)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
