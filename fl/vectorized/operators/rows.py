"""Rows brought to mean 0 and variance 1, as weights that are standardized in every step.

PyTorch's compiler takes the root of each row's variance again for every vector of the row, and
reads all weights five times.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

REPLACED = (F.batch_norm,)
"""The function of PyTorch that `standardize` replaces."""


class Arguments(NamedTuple):
    """The arguments of `standardize`."""

    rows: Tensor
    gain: Tensor
    eps: float


class _BatchNormArguments(NamedTuple):
    """The arguments of ``F.batch_norm``, in its order and with its defaults."""

    x: Tensor
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


def arguments(*args: Any, **kwargs: Any) -> Arguments | None:
    """Return the arguments with which `standardize` does what ``F.batch_norm`` does with these.

    There are such for float32 on the CPU, a batch of one whose channels are rows (1, R, N), the
    batch's own statistics, no running statistics, and no bias. Else None is returned.
    """
    given = _BatchNormArguments(*args, **kwargs)
    x = given.x
    fits = (
        x.dim() == 3 and len(x) == 1 and x.numel() > 0
        and x.dtype == torch.float32 and x.device.type == "cpu" and given.training
        and given.running_mean is None and given.running_var is None and given.bias is None
    )  # fmt: skip
    if not fits:
        return None
    rows = x.squeeze(0)
    gain = rows.new_ones(len(rows)) if given.weight is None else given.weight
    return Arguments(rows, gain, given.eps)


def standardize(rows: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Return ``g·(x - μ)/√(σ² + eps)`` of each row x, with its mean and its biased variance.

    Under `torch.vmap`, lanes of rows become lanes of one operator. Gradients are computed as for
    `fl.vectorized.operators.convolutions.conv`.

    Shapes: rows (R, N), gain (R,); the result (1, R, N), as ``F.batch_norm`` has it.
    """
    return torch.ops.fednf.standardize(rows.unsqueeze(0), gain.unsqueeze(0), eps)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("standardize", registration.like_x, registration.like_tensors)
