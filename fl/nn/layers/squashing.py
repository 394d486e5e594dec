"""DyT and Derf: instead of a normalizer, a bounded function, then a scale and a shift."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.activations import Activation, aligned


class DynamicTanh(Activation):
    """f(x) = tanh(α·x) with a learnable α, initially 1/2.

    Source: arXiv 2503.10622 and its authors' code; one α a layer, there. A channel each
    (`per_channel`) is derived (ours).

    Args:
        channels: as `Activation`.
        per_channel: as `Activation`.
    """

    def __init__(self, channels: int = 1, per_channel: bool = False):
        super().__init__(channels, per_channel)
        self.alpha = self._scalar(0.5)

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return f(x)."""
        return torch.tanh(x * aligned(self.alpha, x))


class DynamicErf(Activation):
    """f(x) = erf(α·x + s) with learnable α, initially 1/2, and s, initially 0.

    Source: arXiv 2512.10938 and its authors' code; one pair a layer, there. A channel each
    (`per_channel`) is derived (ours).

    Args:
        channels: as `Activation`.
        per_channel: as `Activation`.
    """

    def __init__(self, channels: int = 1, per_channel: bool = False):
        super().__init__(channels, per_channel)
        self.alpha = self._scalar(0.5)
        self.shift = self._scalar(0.0)

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return f(x)."""
        return torch.erf(x * aligned(self.alpha, x) + aligned(self.shift, x))


class Affine(nn.Module):
    """γ·x + β, with a weight γ, initially 1, and a bias β, initially 0, for every channel.

    Args:
        channels: channels C of the inputs (batch, C, *space).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return γ·x + β."""
        return x * aligned(self.weight, x) + aligned(self.bias, x)


def dyt(channels: int, per_channel: bool = False) -> nn.Sequential:
    """Return DyT, γ·tanh(αx) + β (arXiv 2503.10622); only α is a scalar of an activation."""
    return _squashed(DynamicTanh(channels, per_channel), channels)


def derf(channels: int, per_channel: bool = False) -> nn.Sequential:
    """Return Derf, γ·erf(αx + s) + β (arXiv 2512.10938); only α and s are an activation's."""
    return _squashed(DynamicErf(channels, per_channel), channels)


def _squashed(squash: Activation, channels: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(squash=squash, affine=Affine(channels))
    return nn.Sequential(layers)
