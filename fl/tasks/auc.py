"""The area under the ROC curve, exact over any split: scores are kept, and ranked at the end."""

from collections.abc import Sequence

import numpy as np
import torch

from fl.tasks.metrics import Labels, Metric, Outputs, Sums, odd_counts, rows


def _join(first: Sums, second: Sums) -> Sums:
    return torch.cat([first, second])


class AUC(Metric):
    """The mean over classes of the area under the ROC curve, each class against all others.

    The area is the probability that an example of the class has a larger score than another; a tie
    counts a half. By ranks R of the scores, ties sharing theirs, with P examples of the class and
    N others: ``(Σ R - P(P + 1)/2) / (P·N)`` (Hanley and McNeil 1982). A class that all or no
    examples have is left out. Scores are probabilities by softmax, or for labels the outputs.
    """

    name, label, fraction = "auc", "AUC", True
    add = staticmethod(_join)

    def sums(self, outputs: Outputs, labels: Labels) -> Sums:
        """Return scores and whether each class is there: (examples, 2, classes), float64.

        They grow with the data: 16 bytes an example and class.
        """
        if outputs.ndim == labels.ndim:
            scores, actual = rows(outputs).double(), rows(labels) > 0.5
        else:
            scores = rows(outputs).double().softmax(1)
            named = torch.arange(scores.shape[1], device=labels.device)
            actual = labels.reshape(-1, 1) == named
        return torch.stack([scores, actual.double()], dim=1)

    def value(self, sums: Sums) -> float:
        """Return the mean over the classes that have an area."""
        found = [area for area in self.per_class(sums) if area == area]
        return sum(found) / len(found) if found else float("nan")

    def shared(self, sums: Sums) -> Sums:
        """Return the area times the number of examples, and this number: scores stay at home."""
        area = self.value(sums)
        counted = len(sums) if area == area else 0
        return torch.tensor([area * counted if counted else 0.0, counted], dtype=torch.float64)

    def pooled(self, shares: Sequence[Sums]) -> float:
        """Return the mean of clients' areas, weighted by their numbers of examples."""
        area, examples = sum(shares)  # pyrefly: ignore
        return float(area / examples) if examples else float("nan")

    def odd(self, shared: Sums, answers: int) -> str | None:
        """Name a number of examples that can't be, or an area that is not from 0 to 1."""
        area, examples = shared
        return odd_counts(examples, answers) or odd_counts(area, examples)

    def per_class(self, sums: Sums) -> list[float]:
        """Return each class's area; NaN where all or no examples have it."""
        scores, actual = sums.numpy(force=True).transpose(1, 2, 0)
        return [_area(one, there > 0.5) for one, there in zip(scores, actual, strict=True)]


def _area(scores: np.ndarray, actual: np.ndarray) -> float:
    there, others = int(actual.sum()), int((~actual).sum())
    if not (there and others) or not np.isfinite(scores).all():
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of equal scores the mean
    return float((ranks[places[actual]].sum() - there * (there + 1) / 2) / (there * others))
