"""Initial weights, drawn from a given generator and never from torch's global one."""

from typing import Literal

import torch
from torch import nn

from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.embeddings import PositionEmbedding

WEIGHED = nn.Conv1d | nn.Conv2d | nn.Conv3d | StandardizedConv | nn.Linear
Scheme = Literal["torch", "he", "lecun"]


def initialize(network: nn.Module, scheme: Scheme, generator: torch.Generator) -> None:
    """Fill every convolution, linear layer and embedding, in the order of `network.modules()`.

    With fan_in = inputs · kernel size of a layer:

    * `torch`: weights and biases U(-1/√fan_in, 1/√fan_in), PyTorch's default;
    * `he`: weights N(0, 2/fan_in), biases 0 (arXiv 1502.01852, 2.2). The classifier, the last
      layer, has N(0, 1/fan_in): no rectifier follows it that would halve the variance;
    * `lecun`: weights N(0, 1/fan_in), biases 0 (LeCun et al., Efficient BackProp, 1998, 4.6).

    Embeddings of positions are N(0, 0.02²) under each, as in the code of arXiv 2010.11929. Norms
    and activations keep the constants that they were made with.

    Args:
        network: is filled in place.
        scheme: one of the three.
        generator: draws all weights, and moves on.
    """
    *_, classifier = (layer for layer in network.modules() if isinstance(layer, WEIGHED))
    for layer in network.modules():
        if isinstance(layer, WEIGHED):
            _fill(layer, scheme, layer is not classifier, generator)
        elif isinstance(layer, PositionEmbedding):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)


def _fill(layer: WEIGHED, scheme: Scheme, hidden: bool, generator: torch.Generator) -> None:
    if scheme == "torch":
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)  # = U(∓1/√fan_in)
    else:
        gain = "relu" if scheme == "he" and hidden else "linear"
        nn.init.kaiming_normal_(layer.weight, nonlinearity=gain, generator=generator)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5 if scheme == "torch" else 0.0
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
