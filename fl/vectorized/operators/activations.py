"""Activations with learnable scalars; one pass over the input gives all of their gradients."""

import torch
from torch import Tensor

from fl.nn.layers import activations
from fl.vectorized.operators import registration

_NAMES = {
    activations.zc_swish: "zc_swish",
    activations.salu: "salu",
    activations.swalu: "swalu",
}
REPLACED = tuple(_NAMES)
"""The functions of `fl.nn.layers.activations` that `activate` replaces."""


def supports(x: Tensor, *scalars: Tensor) -> bool:
    """Return whether `activate` takes these arguments: all float32, on the CPU, and an image."""
    return x.dim() > 1 and x.numel() > 0 and all(
        t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, *scalars)
    )  # fmt: skip


def activate(function, x: Tensor, *scalars: Tensor) -> Tensor:
    """Return what a function of `REPLACED` returns.

    Under `torch.vmap`, lanes of images and of scalars become lanes of one operator. Gradients are
    computed as for `fl.vectorized.operators.convolutions.conv`.

    Shapes: x (B, C, *S), scalars () or (C,); the result as x.
    """
    operator = getattr(torch.ops.fednf, _NAMES[function])
    return operator(x.unsqueeze(0), *(s.reshape(1, -1) for s in scalars)).squeeze(0)


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    for name in _NAMES.values():
        registration.register(name, registration.like_x, registration.like_tensors)
