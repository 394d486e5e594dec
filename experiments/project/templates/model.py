"""The network of this project. `network.kind = "model.py:Net"` in experiment.toml names it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ScaledReLU(nn.Module):
    """max(0, x)·√(2 / (1 − 1/π)): of a normal input with variance 1 the variance is 1 again.

    Source: Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
    unnormalized ResNets", arXiv 2101.08692.
    """

    GAIN = (2 / (1 - 1 / torch.pi)) ** 0.5

    def forward(self, signal: Tensor) -> Tensor:
        """Return the activation of every element."""
        return torch.relu(signal) * self.GAIN


class Net(nn.Module):
    """Three convolutions and a linear layer, without a normalizer.

    Args:
        shape: (channels, height, width) of an image. fednf gives it, and the classes.
        classes: how many there are.
        width: channels of the first convolution. It is an option of this network's own, which
            `network.options.width` sets.
    """

    def __init__(self, shape: Sequence[int], classes: int, width: int = 16) -> None:
        super().__init__()
        widths = [shape[0], width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for before, behind in pairwise(widths):
            layers += [nn.Conv2d(before, behind, 3, stride=2, padding=1), ScaledReLU()]
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (batch, classes) of images (batch, channels, height, width)."""
        return self.classify(self.features(images).mean(dim=(2, 3)))
