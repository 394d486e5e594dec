"""Squeeze-excite: channels that are weighed by what all of space has to say."""

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.pools import global_mean
from fl.nn.slots import linear


class SqueezeExcite(nn.Module):
    """scale·sigmoid(W₂·f(W₁·mean(x) + b₁) + b₂)·x, with the mean over space, a weight a channel.

    Source: arXiv 1709.01507, section 3.

    Args:
        channels: channels C of the inputs (batch, C, *space).
        squeezed: rows of W₁.
        activation: f.
        scale: a constant; 2 makes up for the sigmoid, which is 1/2 at 0.
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, scale: float = 1.0):
        super().__init__()
        self.squeeze = linear(channels, squeezed)
        self.activation = activation
        self.excite = linear(squeezed, channels)
        self.scale = scale

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return the weighed x."""
        weights = self.excite(self.activation(self.squeeze(global_mean(x)))).sigmoid()
        return x * (self.scale * weights).view(*weights.shape, *(1,) * (x.ndim - 2))
