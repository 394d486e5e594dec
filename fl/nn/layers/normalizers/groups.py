"""Normalizers that look at one example at a time: Group-, Layer- and InstanceNorm."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def group_norm(channels: int, groups: int | None = None, most: int = 4) -> nn.GroupNorm:
    """Return GroupNorm (arXiv 1803.08494) with so many groups, or with as many as fit.

    For a group of m values, ``y = w·(x - μ)/√(σ² + 1e-5) + b`` with their mean μ and biased
    variance σ², and with w and b of each channel.

    As many as fit are at most `most`. They divide the channels and hold two or more each (else
    there is a single group), because one value has no variance where the image has shrunk to a
    pixel. The paper's 32 groups do not fit 16 channels; 4 is our choice, 2 that of arXiv
    2505.21877.

    Args:
        channels: channels C of the inputs (batch, C, *space).
        groups: how many; None: as many as fit.
        most: of those that fit.

    Raises:
        ValueError: the groups do not divide the channels.
    """
    if groups is not None:
        if channels % groups:
            fitting = ", ".join(str(g) for g in range(1, 33) if channels % g == 0)
            raise ValueError(
                f"network.groups={groups} does not divide the {channels} channels of a layer; "
                f"these do: {fitting}"
            )
        return nn.GroupNorm(groups, channels)
    fitting = (g for g in range(most, 1, -1) if channels % g == 0 and channels > g)
    return nn.GroupNorm(next(fitting, 1), channels)


def layer_norm(channels: int, tokens: bool = False) -> nn.Module:
    """Return LayerNorm (arXiv 1607.06450), scale and shift a channel.

    Args:
        channels: channels C of the inputs (batch, C, *space).
        tokens: False: over channels and space, for ConvNets; this is GroupNorm with one group,
            as is usual in federated learning (arXiv 2505.21877). True: over the channels of
            each position by itself, as in transformers.
    """
    return TokenNorm(channels) if tokens else nn.GroupNorm(1, channels)


class TokenNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position (arXiv 1607.06450), which stand second.

    Args:
        channels: channels C of the inputs (batch, C, positions).
    """

    def forward(  # pyrefly: ignore
        self, x: Float[Tensor, "batch channels positions"]
    ) -> Float[Tensor, "batch channels positions"]:
        """Return the normalized x."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class InstanceNorm(nn.GroupNorm):
    """Instance normalization (arXiv 1607.08022): every channel of every image by itself.

    This is GroupNorm with one channel a group. A map of one pixel has no variance, and PyTorch
    refuses it if the batch is one image; here the bias alone is left (but for rounding), as it
    is by PyTorch in larger batches. This rule is derived (ours).

    Args:
        channels: channels C of the inputs (batch, C, *space).
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(  # pyrefly: ignore
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return the normalized x."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
