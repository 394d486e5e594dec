"""Layers for channels that come second, where a network has its channels elsewhere."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from fl.nn.layers.normalizers.batch_norm import BatchNorm


class ChannelsSecond(nn.Module):
    """Hands a layer (batch, channels, positions), and gives its output the input's layout back.

    Args:
        layer: from (batch, channels, positions) to the same shape.
        axis: where the inputs have their channels: 1, or -1 as tokens do.
    """

    def __init__(self, layer: nn.Module, axis: int):
        super().__init__()
        self.layer = layer
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, with the shape of x."""
        second = x.movedim(self.axis, 1)
        y = self.layer(second.reshape(*second.shape[:2], -1))
        return y.reshape(second.shape).movedim(1, self.axis)


class BatchNormThen(BatchNorm):
    """Batch normalization, and behind it layers such as an activation, as timm's `BatchNormAct2d`.

    Args:
        channels: as `BatchNorm`.
        affine: as `BatchNorm`.
        layers: what follows, in order and under the names that they keep in the network's state.
    """

    def __init__(self, channels: int, affine: bool, layers: Mapping[str, nn.Module]):
        super().__init__(channels, affine)
        self.behind = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore
        """Return what the last layer makes of the normalized x."""
        x = super().forward(x)
        for name in self.behind:
            x = getattr(self, name)(x)
        return x


def in_a_row(layers: Mapping[str, nn.Module]) -> nn.Module:
    """Return layers under their names, one behind another; a single one as it is."""
    if len(layers) == 1:
        return next(iter(layers.values()))
    return nn.Sequential(OrderedDict(layers))
