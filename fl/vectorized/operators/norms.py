"""Group normalization with a scale and a shift for each lane."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

REPLACED = (F.group_norm, torch.group_norm)
"""The functions of PyTorch that `group_norm` replaces."""


def supports(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> bool:
    """Return whether `group_norm` does what ``F.group_norm`` does with these arguments.

    It does for float32 on the CPU, with scale and shift, where groups have two values or more.
    """
    tensors = x, weight, bias
    return (
        all(t is not None and t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and x.dim() > 1 and x.numel() > len(x) * num_groups and x.shape[1] % num_groups == 0
    )  # fmt: skip


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Return ``w·(x - μ)/√(σ² + eps) + b``, by the mean and the biased variance of groups.

    Under `torch.vmap`, lanes of images and of weights become lanes of one operator. Gradients are
    computed as for `fl.vectorized.operators.convolutions.conv`.

    Shapes: x (B, C, *S), w and b (C,); the result as x. Source: arXiv 1803.08494, section 3.1.
    """
    lane = x.unsqueeze(0), weight.unsqueeze(0), bias.unsqueeze(0)
    return torch.ops.fednf.group_norm(*lane, num_groups, eps).squeeze(0)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("group_norm", registration.like_x, registration.like_tensors)
