"""Max pools of side 2, whose gradient PyTorch finds by indices, slower than a convolution's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

THEIRS = (F.max_pool2d, torch.max_pool2d)
"""What `max_pool` may stand in for."""
Sizes = int | tuple[int, ...] | list[int]


def supports(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> bool:
    """Return whether `max_pool` does what ``F.max_pool2d`` does with these arguments.

    It does for float32 on the CPU, maps of even sides, and squares of side 2 that don't overlap.
    """

    def all_are(sizes: Sizes | None, size: int) -> bool:
        return sizes in (size, (size, size), [size, size])

    return (
        x.dim() in (3, 4) and x.dtype == torch.float32 and x.device.type == "cpu"
        and x.numel() > 0 and x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0
        and all_are(kernel_size, 2) and (stride is None or all_are(stride, 2))
        and all_are(padding, 0) and all_are(dilation, 1) and not return_indices
    )  # fmt: skip


def max_pool(x: Tensor) -> Tensor:
    """Return the largest of each 2×2 pixels, NaN if one is; the gradient goes to the first such.

    To the last NaN, as PyTorch has it. Under `torch.vmap` lanes are maps like others.

    Shapes: x (..., H, W); the result (..., H/2, W/2).
    """
    return torch.ops.fednf.max_pool(x)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("max_pool", _fake, lambda grad, x: registration.like_x(x))


def _fake(x: Tensor) -> Tensor:
    return x.new_empty([*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2])
