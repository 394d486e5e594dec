"""One class of several: cross-entropy, with what is done about classes that clients lack."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.config.task import Task as Knobs
from fl.tasks.metrics import Labels, Metric, Outputs
from fl.tasks.task import Losses, Objective, Task, plain


def cross_entropy(outputs: Outputs, labels: Labels) -> Losses:
    """Return -log softmax(z)_y of each example, in nats."""
    # Not `F.cross_entropy`: under vmap its parts load sympy, which takes 0.7 s.
    return -F.log_softmax(outputs, dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


class Classification(Task):
    """One class of several. Labels are classes from 0 on, (batch,); outputs are logits.

    With logits z, label y, smoothing ε, C classes and weights w, an example's loss is
    ``-Σ_c w_c q_c log softmax(a(z))_c`` with ``q_c = (1 - ε)[c = y] + ε/C``. A batch's loss is the
    mean over its examples. In training, a client with n_c examples of class c has
    ``a(z)_c = z_c - τ n_c^(-1/4)`` (FedLC, arXiv 2209.00189) or ``a(z)_c = α z_c`` where n_c = 0
    and z_c elsewhere (FedRS, KDD 2021). FedLC's term has no bound where n_c = 0, so such classes
    are left out of the softmax (derived). Balanced weights are n / (C n_c), as scikit-learn has
    them, and 0 where n_c = 0. Evaluation knows no client: neither the logits are adjusted then, nor
    are balanced weights taken.

    Args:
        knobs: smoothing, weights and adjustment.
    """

    def __init__(self, knobs: Knobs) -> None:
        self.smoothing, self.weights = knobs.label_smoothing, knobs.weights
        self.balanced = knobs.class_weights == "balanced"
        self.adjustment, self.strength = knobs.adjustment

    def metrics(self) -> Sequence[str]:
        """Return the accuracy."""
        return ["accuracy"]

    @property
    def is_plain(self) -> bool:
        """Whether the loss is the cross-entropy and nothing else."""
        return not (self.smoothing or self.weights or self.needs_counts)

    @property
    def needs_counts(self) -> bool:
        """Whether the loss depends on the classes that a client has."""
        return self.balanced or self.adjustment != "none"

    def objective(self, metrics: Sequence[Metric]) -> Objective:
        """Return the objective; the plain one's mean and sum are PyTorch's own."""
        if not self.is_plain:
            return plain(self, self.loss, metrics)
        total = partial(F.cross_entropy, reduction="sum")
        return Objective(self, cross_entropy, F.cross_entropy, total, tuple(metrics))

    def loss(self, outputs: Outputs, labels: Labels, own: Tensor | None = None) -> Losses:
        """Return the loss of each example; `own` has scale, shift and weight of each class."""
        weights = outputs.new_tensor(self.weights) if self.weights else None
        if own is not None:
            scale, shift, balanced = own.to(outputs)
            outputs = outputs * scale + shift
            weights = balanced if self.balanced else weights
        logs = F.log_softmax(outputs, dim=-1)
        weighed = logs if weights is None else logs * weights
        losses = -weighed.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        if self.smoothing:
            losses = (1 - self.smoothing) * losses - self.smoothing * weighed.mean(-1)
        return losses

    def own(self, labels: Labels, classes: int) -> Tensor | None:
        """Return scale, shift and weight of each class, in float64; None where all are plain.

        Shapes: (3, classes).
        """
        if not self.needs_counts:
            return None
        counts = labels.bincount(minlength=classes).double()
        scale, shift, weight = torch.ones(3, classes, dtype=torch.float64)
        if self.adjustment == "fedrs":
            scale[counts == 0] = self.strength
        elif self.adjustment == "fedlc":
            shift = -self.strength * counts**-0.25 if self.strength else torch.zeros_like(counts)
        if self.balanced:
            weight = torch.where(counts > 0, len(labels) / (classes * counts), 0.0)
        return torch.stack([scale, shift, weight])

    def check(self, labels: Tensor, classes: int) -> None:
        """Refuse labels that are not one class an example, and weights of other classes.

        Raises:
            ValueError: what is wrong.
        """
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected one class "
                "(int64) for each example"
            )
        if classes < 2:
            raise ValueError("all examples are of one class; a data set has two classes or more")
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"labels run from {labels.min()} to {labels.max()}, but there are {classes} classes"
            )
        if len(self.weights) not in (0, classes):
            raise ValueError(
                f"task.class-weights has {len(self.weights)} numbers, but there are {classes} "
                "classes"
            )

    def constants(self, labels: Labels, classes: int) -> Sequence[Tensor]:
        """Return the one answer that ranks classes by how frequent they are."""
        return [labels.bincount(minlength=classes).float()]
