"""Gradient accumulation: a step of a large batch, in the memory of a small one.

A batch of n images is cut into parts of at most B. The gradient is ``Σ_j (n_j / n) ∇L_j``, where
part j has n_j images and the mean loss L_j: for networks without batch statistics that is the
gradient of the whole batch. BatchNorm sees each part by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl.data import Batch
from fl.nn import BatchNorm
from fl.training.parameters import Vector


def parts(batch: Batch, size: int) -> list[Batch]:
    """Return a batch in parts of at most `size` images, in order."""
    inputs, labels = batch
    return list(zip(inputs.split(size), labels.split(size), strict=True))


@dataclass(frozen=True)
class Accumulated:
    """Differentiates a batch part by part."""

    mean_loss: Callable[..., Tensor]
    """(outputs, labels) -> the mean loss of a part."""
    size: int
    """B."""
    norms: Sequence[BatchNorm]
    """The network's, which count the steps in which they saw one value a channel."""

    def __call__(
        self, differentiate: Callable[..., Tensor], gradient: Vector, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Write a batch's gradient, and return its mean loss.

        Args:
            differentiate: (mean loss, inputs, labels) -> loss; writes the gradient.
            gradient: where that writes to, and this.
            inputs: of the batch.
            labels: of the batch.
        """
        total, loss = torch.zeros_like(gradient), torch.zeros((), device=gradient.device)
        before = [norm.single_value_steps for norm in self.norms]
        for part in parts((inputs, labels), self.size):
            share = len(part[1]) / len(labels)
            loss = loss + differentiate(self.mean_loss, *part) * share
            total.add_(gradient, alpha=share)
        for norm, count in zip(self.norms, before, strict=True):
            norm.single_value_steps = min(norm.single_value_steps, count + 1)
        gradient.copy_(total)
        return loss
