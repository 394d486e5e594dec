"""Rows brought to mean 0 and variance 1, as weights that are standardized in every step.

The compiler takes the root of each row's variance again for every vector of the row, and sweeps
over all weights five times.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

THEIRS = (F.batch_norm,)
"""What `standardize` may stand in for."""


def raw(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, float] | None:
    """Return what `standardize` takes to do what ``F.batch_norm`` does; None where it can't.

    It can for float32 on the CPU, a batch of one whose channels are rows (1, R, N), its own
    statistics, none that are kept, and no bias.
    """
    fits = (
        x.dim() == 3 and len(x) == 1 and x.numel() > 0
        and x.dtype == torch.float32 and x.device.type == "cpu"
        and training and running_mean is None and running_var is None and bias is None
    )  # fmt: skip
    if not fits:
        return None
    rows = x.squeeze(0)
    return rows, rows.new_ones(len(rows)) if weight is None else weight, eps


def standardize(rows: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Return ``g·(x - μ)/√(σ² + eps)`` of each row x, with its mean and its biased variance.

    Under `torch.vmap` lanes of rows become lanes of one operator. Gradients are had as those of
    `fl.vectorized.operators.convolutions.conv`.

    Shapes: rows (R, N), gain (R,); the result (1, R, N), as ``F.batch_norm`` has it.
    """
    return torch.ops.fednf.standardize(rows.unsqueeze(0), gain.unsqueeze(0), eps)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("standardize", registration.like_x, registration.like_tensors)
