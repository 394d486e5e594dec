"""Squeeze-and-excitation: channels are weighted by gates computed from the whole image."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.pools import global_mean
from fl.nn.slots import linear


class SqueezeExcite(nn.Module):
    """excite(x, sigmoid(W₂·f(W₁·mean(x) + b₁) + b₂)), with the mean over space, a gate a channel.

    Source: arXiv 1709.01507, section 3, equations 2 to 4, whose two layers have no biases; the
    codes of EfficientNet and NFNet have.

    Args:
        channels: channels C of the inputs (batch, C, *space).
        squeezed: rows of W₁.
        activation: f; ReLU in the source.
        excite: (x, gate in (0, 1)) -> output; the product in the source.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: nn.Module,
        excite: Callable[[Tensor, Tensor], Tensor],
    ):
        super().__init__()
        self.reduce = linear(channels, squeezed)
        self.activation = activation
        self.expand = linear(squeezed, channels)
        self.excite = excite

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return x with its channels weighted."""
        gate = self.expand(self.activation(self.reduce(global_mean(x)))).sigmoid()
        return self.excite(x, gate.view(*gate.shape, *(1,) * (x.ndim - 2)))
