"""A skeleton's slots: what a recipe puts into each, for the dimensions at hand."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from torch import nn

from fl.nn.layers.convs import Kernel, plain
from fl.nn.layers.gains import gain
from fl.nn.layers.unset import unset
from fl.nn.recipe import Place, Recipe


@dataclass(frozen=True)
class Slots:
    """Makes the layers of a network as its recipe has them."""

    recipe: Recipe
    dims: int = 2
    """Dimensions of space, 1 to 3."""
    per_channel: bool = False
    """As `fl.config.Network.per_channel`."""
    native: type[nn.Module] = nn.ReLU
    """The activation of the skeleton's own paper."""

    @property
    def gain(self) -> float:
        """γ of the activation, where weights are standardized to make use of it; else 1."""
        if self.recipe.conv is plain:
            return 1.0
        return gain(self.recipe.activation(Place(1, native=self.native)))

    def conv(
        self,
        inputs: int,
        outputs: int,
        side: int,
        stride: int = 1,
        *,
        groups: int = 1,
        gain: float | None = None,
        same: bool = False,
    ) -> nn.Module:
        """Return a convolution; sides of the image become ⌈side / stride⌉ pixels.

        Args:
            inputs: channels in.
            outputs: channels out.
            side: of the kernel in pixels; odd.
            stride: in pixels.
            groups: groups of channels that do not see each other.
            gain: γ for standardized weights; None: that of the recipe's activation.
            same: as `fl.nn.layers.convs.Kernel`.
        """
        bias = self.recipe.bias
        factor = self.gain if gain is None else gain
        return self.recipe.conv(
            Kernel(self.dims, inputs, outputs, side, stride, groups, bias, factor, same)
        )

    def norm(self, channels: int, *, tokens: bool = False) -> nn.Module:
        """Return what stands in the place of a normalizer, of tokens or of all else."""
        return self.recipe.norm(replace(self._place(channels), tokens=tokens))

    def activation(self, channels: int) -> nn.Module:
        """Return what stands in the place of an activation."""
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
        return Place(channels, self.per_channel, self.native)


@dataclass(frozen=True)
class Size:
    """How large a network is: the knobs `network.*`, with `auto` settled."""

    depth: int
    """Of an nfnet, n of Fn."""
    width: int
    stem_stride: int
    dropout: float = 0.0
    stochastic_depth: float = 0.0


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer without initial weights: PyTorch's come from its global generator."""
    return unset(nn.Linear, inputs, outputs, bias=bias)
