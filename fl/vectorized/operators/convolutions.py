"""Convolutions by sums of our own, which are made for micro-batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.vectorized.operators import registration

REPLACED = (F.conv1d, F.conv2d)
"""The functions of PyTorch that `conv` replaces."""
_LARGEST_SIDE = 7
"""Kernels with longer sides are left to PyTorch."""
_MOST_IMAGES, _MOST_CHANNELS = 32, 128
"""`conv` is not used for more images a batch or more channels, but where it goes by tiles."""
Sizes = int | Sequence[int]
"""A size along all axes of space, or one for each."""


class _Arguments(NamedTuple):
    """The arguments of ``F.conv1d`` and ``F.conv2d``, in their order and with their defaults."""

    x: Tensor
    w: Tensor
    bias: Tensor | None = None
    stride: Sizes = 1
    padding: Sizes | str = 0
    dilation: Sizes = 1
    groups: int = 1


def supports(*args: Any, **kwargs: Any) -> bool:
    """Return whether `conv` takes these arguments of ``F.conv1d`` or ``F.conv2d``.

    It takes float32 on the CPU, not empty, one or two axes, kernels with odd sides up to 7, a
    stride of 1 or 2 and a padding below the smallest side (both the same along all axes), no
    dilation, and one group. `faster` says whether that is faster, too.
    """
    x, w, _, stride, padding, dilation, groups = _Arguments(*args, **kwargs)
    sides, step, zeros = w.shape[2:], _same(stride), _same(padding)
    return (
        x.dim() == w.dim() and len(sides) in (1, 2) and x.numel() > 0
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, w))
        and all(side % 2 == 1 and side <= _LARGEST_SIDE for side in sides)
        and step in (1, 2) and zeros is not None and 0 <= zeros < min(sides)
        and all(side <= n + 2 * zeros for side, n in zip(sides, x.shape[2:], strict=True))
        and _same(dilation) == 1 and groups == 1
    )  # fmt: skip


def conv(*args: Any, standard: tuple[Tensor, float] | None = None, **kwargs: Any) -> Tensor:
    """Return what ``F.conv1d`` or ``F.conv2d`` does, for arguments that `supports` accepts.

    With `standard`, a gain and ε, filters are first standardized, see `rows.py`. The standardized
    filters of a lane, and their gradients, then stay in the processor's cache: with 700,000
    weights, a step at a batch of one takes as long as their way to memory and back.

    Under `torch.vmap`, lanes of images and of weights become lanes of one operator. Gradients are
    computed by ``torch.autograd.grad`` outside of `torch.vmap`; gradients of gradients do not
    exist.

    Shapes: x (B, C, *S), w (O, C, *k), bias and gain (O,); the result (B, O, *S').
    """
    x, w, bias, stride, padding, *_ = _Arguments(*args, **kwargs)
    lane, sizes = (x.unsqueeze(0), w.unsqueeze(0)), (_same(stride), _same(padding))
    if standard is None:
        y = torch.ops.fednf.lane_conv(*lane, *sizes).squeeze(0)
    else:
        gain, eps = standard
        y = torch.ops.fednf.standardized_conv(*lane, gain.unsqueeze(0), eps, *sizes).squeeze(0)
    return y if bias is None else y + bias.view(-1, *[1] * (w.dim() - 2))


def faster(*args: Any, **kwargs: Any) -> bool:
    """Return whether `conv` takes these arguments of ``F.conv1d`` or ``F.conv2d``, and is faster.

    It is with up to 128 channels and 32 images; and with filters of 3×3 by a stride of 1, which
    take 16 products where others take 36, by tiles of 2×2 pixels: with 8 to 256 channels, maps of
    4×4 and more, and any number of images that have 16 tiles together.

    GFLOP/s, counting 36, of `conv` forward and of PyTorch, one core of a virtual AMD EPYC (AVX2)
    whose matrix product has 90. Four images: 84 and 34 from 16 to 16 channels at 16×16; 93 and 39
    from 32 to 32 at 8×8; 162 and 81 from 64 to 64 at 16×16; 143 and 81 from 128 to 128 at 8×8; 141
    and 79 from 256 to 256 at 8×8. With 64 images: 101 and 61; 118 and 83; 159 and 84; 165 and 88;
    175 and 89. By a stride of 2, 47 and 24 from 16 to 32 at 16×16 with four images, and 64 and 67
    with 64.
    """
    if len(args) < 2 or not supports(*args, **kwargs):
        return False
    x, w, _, stride, padding, *_ = _Arguments(*args, **kwargs)
    least, most = sorted(w.shape[:2])
    if w.shape[2:] == (3, 3) and _same(stride) == 1 and least >= 8 and most <= 256:
        # As `in_tiles` of tiling.h has it.
        height, width = (n + 2 * (_same(padding) or 0) - 2 for n in x.shape[2:])
        if min(height, width) >= 4 and len(x) * -(-height // 2) * -(-width // 2) >= 16:
            return True
    return len(x) <= _MOST_IMAGES and most <= _MOST_CHANNELS


def _same(sizes: Sizes | str) -> int | None:
    """Return the size that is the same along all axes, or None."""
    if isinstance(sizes, int | str):
        return sizes if isinstance(sizes, int) else None
    return sizes[0] if len(set(sizes)) == 1 else None


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("lane_conv", _fake, _fake_backward, may_lack_x=True)
    registration.register(
        "standardized_conv",
        lambda x, w, gain, eps, *sizes: _fake(x, w, *sizes),
        lambda grad, x, w, gain, eps, *sizes: (
            *_fake_backward(grad, x, w, *sizes),
            gain.new_empty(gain.shape),
        ),
        may_lack_x=True,
    )


def _fake(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    sizes = zip(x.shape[3:], w.shape[3:], strict=True)
    out = [(n + 2 * padding - side) // stride + 1 for n, side in sizes]
    return x.new_empty([*x.shape[:2], w.shape[1], *out])


def _fake_backward(
    grad: Tensor, x: Tensor, w: Tensor, stride: int, padding: int, needs_x: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if needs_x else [0]), w.new_empty(w.shape)
