"""Pools over space, for any number of dimensions and any size of image."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
"""PyTorch's average pools by the dimensions of space."""
_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class AveragePool(nn.Module):
    """The mean over squares of pixels that do not overlap, cut off at the border.

    A square is cut by hand where the whole image is smaller, which PyTorch refuses in 3-D.

    Args:
        side: side of a square, in pixels.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *smaller"]:
        """Return the means; a side becomes ⌈side / self.side⌉."""
        square = [min(self.side, side) for side in x.shape[2:]]
        # Without padding, the last argument changes no result. It is there because without it
        # PyTorch 2.13's compiler differentiates cut squares wrongly (pytorch#198119).
        return _AVERAGE[len(square)](x, square, square, ceil_mode=True, count_include_pad=False)


def global_mean(x: Tensor) -> Tensor:
    """Return the mean over space: (batch, channels, *space) to (batch, channels)."""
    return x.mean(tuple(range(2, x.ndim)))


def halving_max(dims: int) -> nn.Module:
    """Return the max pool of side and stride 2; a side becomes ⌈side / 2⌉."""
    return _MAX[dims](2, ceil_mode=True)


def overlapping_max(dims: int) -> nn.Module:
    """Return the max pool of side 3 and stride 2 of ResNet's stem (arXiv 1512.03385, table 1)."""
    return _MAX[dims](3, stride=2, padding=1)
