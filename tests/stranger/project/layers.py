"""A layer of the stranger's own."""

import torch
from torch import nn


class Bend(nn.Module):
    """x · sigmoid(b·x) with a learnable b for each channel."""

    def __init__(self, channels):
        super().__init__()
        self.bend = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.bend * x)
