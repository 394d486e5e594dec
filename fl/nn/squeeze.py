"""Squeeze-and-excitation: channels weigh themselves by what the whole image holds."""

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.slots import Slots, global_mean, linear


class SqueezeExcite(nn.Module):
    """excite(x, sigmoid(W₂·activation(W₁·mean(x) + b₁) + b₂)), the mean being that over space.

    Source: arXiv 1709.01507, section 3, equations 2 to 4 (there the activation is ReLU), whose
    two layers have no biases; EfficientNets' code has.

    Args:
        slots: the activation between the two layers, and how the gate is put on (`excite`).
        channels: channels C of the inputs (batch, C, *space).
        squeezed: numbers between the two layers.
    """

    def __init__(self, slots: Slots, channels: int, squeezed: int):
        super().__init__()
        self.reduce = linear(channels, squeezed)
        self.activation = slots.activation(squeezed)
        self.expand = linear(squeezed, channels)
        self.excite = slots.recipe.excite

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return x with its channels weighed."""
        gate = self.expand(self.activation(self.reduce(global_mean(x)))).sigmoid()
        return self.excite(x, gate.view(*gate.shape, *(1,) * (x.ndim - 2)))
