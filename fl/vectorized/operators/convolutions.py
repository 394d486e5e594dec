"""Convolutions of micro-batches by direct sums."""

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
"""`conv` is not used for more images a batch or more channels, see `faster`."""
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

    It takes float32 on the CPU, one or two axes, kernels with odd sides up to 7, a stride of 1 or 2
    and a padding below the smallest side (both the same along all axes), no dilation, and one
    group. `faster` says whether that is faster, too.
    """
    x, w, _, stride, padding, dilation, groups = _Arguments(*args, **kwargs)
    sides, step, zeros = w.shape[2:], _same(stride), _same(padding)
    return (
        x.dim() == w.dim() and len(sides) in (1, 2)
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

    It is with up to 128 channels and 32 images. GFLOP/s forward and backward, 3×3, one core of a
    virtual Intel Xeon (AVX-512) whose matrix product has 167, counting taps that meet only zeros.
    `conv`, 5 lanes of one image, and PyTorch's grouped convolution: 92 and 76, 24 and 18 from 3 to
    16 channels at 32×32; 127 and 129, 82 and 81 from 16 to 32 at 16×16; 97 and 106, 46 and 46 from
    16 to 16 at 14×14; 91 and 85, 44 and 44 from 32 to 32 at 7×7; 118 and 88, 77 and 78 from 64 to
    64 at 7×7; 77 and 62, 42 and 16 from 128 to 128 at 4×4. With 32 images, 3 lanes, `conv` and
    PyTorch's lane by lane, which is not how it comes under `torch.vmap`: 114 and 132, 117 and 116
    from 16 to 32 at 14×14; 155 and 151, 139 and 136 from 32 to 32 at 14×14; 186 and 174, 161 and
    144 from 64 to 64 at 7×7; 214 and 165, 162 and 153 from 128 to 128 at 4×4.
    """
    if len(args) < 2 or not supports(*args, **kwargs):
        return False
    x, w = args[:2]
    return len(x) <= _MOST_IMAGES and max(w.shape[:2]) <= _MOST_CHANNELS


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
