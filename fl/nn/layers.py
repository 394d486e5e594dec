"""Convolutions whose weights are left to `initialize`, and the norms behind them."""

from collections import OrderedDict

from torch import nn

from fl.nn.recipes import Recipe


class Conv(nn.Conv2d):
    """A convolution without initial weights: PyTorch's would come from its global generator."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Linear(nn.Linear):
    """A linear layer without initial weights, for the same reason as `Conv`."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


def conv_norm(
    recipe: Recipe, inputs: int, outputs: int, kernel: int, stride: int, per_channel: bool
) -> OrderedDict[str, nn.Module]:
    """Return the named layers conv and norm; the image's sides become ⌈side / stride⌉ pixels.

    Args:
        recipe: fills the norm's slot, and says whether the convolution has a bias.
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel in pixels; odd.
        stride: in pixels.
        per_channel: as `fl.config.Network.per_channel`.
    """
    conv = Conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=recipe.bias)
    return OrderedDict(conv=conv, norm=recipe.norm(outputs, per_channel))
