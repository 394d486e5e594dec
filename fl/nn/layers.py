"""Convolutions whose weights are left to `initialize`, and the norms behind them."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.utils import skip_init

from fl.nn.recipes import Recipe

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By dimensions of space: signals, images, volumes."""


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without initial weights: PyTorch's come from its global generator."""
    return skip_init(nn.Linear, inputs, outputs)  # pyrefly: ignore


def conv_norm(
    recipe: Recipe,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    *,
    dims: int,
    per_channel: bool,
) -> OrderedDict[str, nn.Module]:
    """Return the named layers conv and norm; sides of the image become ⌈side / stride⌉ pixels.

    Args:
        recipe: fills the norm's slot, and says whether the convolution has a bias.
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel in pixels; odd.
        stride: in pixels.
        dims: dimensions of space, 1 to 3.
        per_channel: as `fl.config.Network.per_channel`.
    """
    conv = skip_init(
        CONVOLUTIONS[dims],
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        bias=recipe.bias,
    )
    return OrderedDict(conv=conv, norm=recipe.norm(outputs, per_channel))


def global_mean(x: Tensor) -> Tensor:
    """Return the mean over space: (batch, channels, *space) to (batch, channels)."""
    return x.mean(tuple(range(2, x.ndim)))
