"""From knobs to a network with its initial weights."""

from typing import assert_never

import torch
from torch import nn

from fl.config import Network
from fl.nn.initialization import initialize
from fl.nn.plainnet import PlainNet
from fl.nn.recipes import find
from fl.nn.resnet import ResNet


def build(
    network: Network,
    recipe: str,
    channels: int,
    classes: int,
    generator: torch.Generator,
    dims: int = 2,
) -> nn.Module:
    """Return a network from examples (batch, channels, *space) to logits (batch, classes).

    It is a pure function of its arguments and the generator's state: torch's global generator
    is neither read nor moved.

    Args:
        network: the skeleton; `auto` means depth 8 for plainnet, 20 for resnet, and width 16.
        recipe: a row of `RECIPES`.
        channels: channels of an image.
        classes: how many classes there are.
        generator: fills the weights; it moves on.
        dims: dimensions of space: 1 for signals, 2 for images, 3 for volumes.

    Raises:
        ValueError: an unknown recipe, or a depth that the skeleton can't have.
    """
    row = find(recipe)
    width = 16 if network.width == "auto" else network.width
    match network.kind:
        case "plainnet":
            skeleton, depth = PlainNet, 8
        case "resnet":
            skeleton, depth = ResNet, 20
        case unknown:
            assert_never(unknown)
    depth = depth if network.depth == "auto" else network.depth
    net = skeleton(
        row,
        channels,
        classes,
        depth,
        width,
        network.stem_stride,
        dims=dims,
        per_channel=network.per_channel,
    )
    initialize(net, network.init, generator)
    return net
