"""Max pools of side 2. PyTorch takes their gradient by indices, slower than a convolution's."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

REPLACED = (F.max_pool2d, torch.max_pool2d)
"""The functions of PyTorch that `max_pool` replaces."""
Sizes = int | tuple[int, ...] | list[int]
"""A size along both axes, or one for each."""


class _Arguments(NamedTuple):
    """The arguments of ``F.max_pool2d``, in its order and with its defaults."""

    x: Tensor
    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    dilation: Sizes = 1
    ceil_mode: bool = False
    return_indices: bool = False


def supports(*args: Any, **kwargs: Any) -> bool:
    """Return whether `max_pool` does what ``F.max_pool2d`` does with these arguments.

    It does for float32 on the CPU, maps of even sides, and squares of side 2 that don't overlap.
    """
    x, kernel_size, stride, padding, dilation, _, indices = _Arguments(*args, **kwargs)

    def all_are(sizes: Sizes | None, size: int) -> bool:
        return sizes in (size, (size, size), [size, size])

    return (
        x.dim() in (3, 4) and x.dtype == torch.float32 and x.device.type == "cpu"
        and x.numel() > 0 and x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0
        and all_are(kernel_size, 2) and (stride is None or all_are(stride, 2))
        and all_are(padding, 0) and all_are(dilation, 1) and not indices
    )  # fmt: skip


def max_pool(x: Tensor) -> Tensor:
    """Return the largest of each 2×2 pixels, or NaN if one is NaN.

    The gradient goes to the first of the largest, or to the last NaN, as in PyTorch. Under
    `torch.vmap`, lanes are maps like others.

    Shapes: x (..., H, W); the result (..., H/2, W/2).
    """
    return torch.ops.fednf.max_pool(x)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("max_pool", _fake, lambda grad, x: registration.like_x(x))


def _fake(x: Tensor) -> Tensor:
    return x.new_empty([*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2])
