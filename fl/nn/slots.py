"""A skeleton's slots: makes the layers that a recipe puts into each."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import nn

from fl.nn.layers.convs import Kernel, plain
from fl.nn.layers.gains import gain
from fl.nn.layers.noise import Dropout
from fl.nn.layers.normalizers.features import FeatureNorm
from fl.nn.layers.unset import unset
from fl.nn.recipe import Place, Recipe


@dataclass(frozen=True)
class Slots:
    """Makes the layers of a network by its recipe."""

    recipe: Recipe
    """The recipe whose layers are made."""
    dims: int = 2
    """Dimensions of space, 1 to 3."""
    per_channel: bool = False
    """Whether learnable scalars are one a channel, as `fl.config.Network.per_channel`."""
    native: type[nn.Module] = nn.ReLU
    """The activation of the skeleton's own paper."""
    groups: int | None = None
    """Groups of channels in normalizers, as `fl.config.Network.groups`; None: the recipe's own."""

    @property
    def gain(self) -> float:
        """γ of the activation if the recipe standardizes weights, which then use it; else 1."""
        if self.recipe.conv is plain:
            return 1.0
        with torch.device("cpu"):  # also where the network itself is built without memory
            return gain(self.recipe.activation(Place(1, native=self.native)))

    def kernel(
        self, inputs: int, outputs: int, side: int, stride: int = 1, *, groups: int = 1
    ) -> Kernel:
        """Return the dimensions of a convolution, with the recipe's bias and γ = 1.

        Args:
            inputs: channels in.
            outputs: channels out.
            side: side of the kernel in pixels; odd.
            stride: in pixels.
            groups: groups of channels that do not see each other.
        """
        return Kernel(self.dims, inputs, outputs, side, stride, groups, self.recipe.bias)

    def conv(
        self, inputs: int, outputs: int, side: int, stride: int = 1, *, groups: int = 1
    ) -> nn.Module:
        """Return a convolution whose standardized weights have the γ of the recipe's activation.

        Sides of the image become ⌈side / stride⌉ pixels. Arguments as `kernel`.
        """
        kernel = self.kernel(inputs, outputs, side, stride, groups=groups)
        return self.recipe.conv(replace(kernel, gain=self.gain))

    def norm(self, channels: int, *, tokens: bool = False) -> nn.Module:
        """Return the recipe's normalizer, or what replaces it."""
        return self.recipe.norm(replace(self._place(channels), tokens=tokens))

    def activation(self, channels: int) -> nn.Module:
        """Return the recipe's activation."""
        return self.recipe.activation(self._place(channels))

    def conv_norm(
        self, inputs: int, outputs: int, side: int, stride: int = 1, *, groups: int = 1
    ) -> OrderedDict[str, nn.Module]:
        """Return the named layers conv and norm; arguments as `conv`."""
        conv = self.conv(inputs, outputs, side, stride, groups=groups)
        return OrderedDict(conv=conv, norm=self.norm(outputs))

    def conv_norm_activation(
        self, inputs: int, outputs: int, side: int, stride: int = 1, *, groups: int = 1
    ) -> nn.Sequential:
        """Return the named layers conv, norm and activation in a row; arguments as `conv`."""
        layers = self.conv_norm(inputs, outputs, side, stride, groups=groups)
        layers["activation"] = self.activation(outputs)
        return nn.Sequential(layers)

    def _place(self, channels: int) -> Place:
        return Place(channels, self.per_channel, self.native, self.groups)


@dataclass(frozen=True)
class Size:
    """How large a network is: the knobs `network.*`, with `auto` resolved."""

    depth: int
    """Layers; for an nfnet, n of Fn."""
    width: int
    stem_stride: int
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    feature_norm: bool = False
    squeeze: int = 0


def before_classifier(size: Size) -> nn.Module:
    """Return what a classifier's features pass first: normalization, if asked for, and dropout."""
    dropout = Dropout(size.dropout)
    return nn.Sequential(FeatureNorm(), dropout) if size.feature_norm else dropout


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer without initial weights: PyTorch's come from its global generator."""
    return unset(nn.Linear, inputs, outputs, bias=bias)
