"""Yes or no for each of several labels: binary cross-entropy."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fl.tasks.metrics import Labels, Outputs
from fl.tasks.task import Losses, Task


class Multilabel(Task):
    """Yes or no for each label: labels are 0 or 1, (batch, labels); outputs are logits.

    An example's loss is the mean over its labels of ``log(1 + e^z) - y z`` in nats.
    """

    def metrics(self) -> Sequence[str]:
        """Return macro-F1."""
        return ["macro-f1"]

    def loss(self, outputs: Outputs, labels: Labels) -> Losses:
        """Return the mean binary cross-entropy of each example."""
        return (F.softplus(outputs) - labels.to(outputs.dtype) * outputs).mean(-1)

    def check(self, labels: Tensor, classes: int) -> None:
        """Refuse labels that are not 0 or 1, one for each example and label.

        Raises:
            ValueError: what is wrong.
        """
        if labels.ndim != 2 or labels.shape[1] != classes:
            raise ValueError(
                f"labels have the shape {tuple(labels.shape)}, expected (examples, {classes})"
            )
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError("labels have values other than 0 and 1")

    def classes_for_deal(self, labels: Tensor) -> np.ndarray:
        """Return each example's rarest label among all that it has, and L for one without any."""
        there = labels.numpy() > 0
        ranks = np.argsort(np.argsort(there.sum(0), kind="stable"), kind="stable")
        rarest = np.where(there, ranks, len(ranks)).argmin(1)
        return np.where(there.any(1), rarest, len(ranks)).astype(np.int64)

    def constants(self, labels: Labels, classes: int) -> Sequence[Tensor]:
        """Return yes to all, and to each what most examples have."""
        frequent = labels.double().mean(0) - 0.5
        return [torch.ones(classes, dtype=torch.float64), frequent]
