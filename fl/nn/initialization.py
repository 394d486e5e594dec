"""Initial weights, drawn from a given generator and never from torch's global one."""

from typing import Literal

import torch
from torch import nn

from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.embeddings import PositionEmbedding
from fl.reproducibility.seeds import torch_stream

WEIGHED = nn.Conv1d | nn.Conv2d | nn.Conv3d | StandardizedConv | nn.Linear
Scheme = Literal["torch", "he", "lecun", "critical"]


def initialize(network: nn.Module, scheme: Scheme, generator: torch.Generator) -> None:
    """Fill every convolution, linear layer and embedding, each parameter from a stream of its own.

    With fan_in = inputs · kernel size of a layer:

    * `torch`: weights and biases U(-1/√fan_in, 1/√fan_in), PyTorch's default;
    * `he`: weights N(0, 2/fan_in), biases 0 (arXiv 1502.01852, 2.2). The classifier, the last
      layer, has N(0, 1/fan_in): no rectifier follows it that would halve the variance;
    * `lecun`: weights N(0, 1/fan_in), biases 0 (LeCun et al., Efficient BackProp, 1998, 4.6);
    * `critical`: as `lecun`, for `fl.nn.criticality` to give another size to.

    Embeddings of positions are N(0, 0.02²) under each, as in the code of arXiv 2010.11929. Norms
    and activations keep the constants that they were made with.

    The generator gives one number, and a parameter's stream is that of this number and of its name.
    So recipes whose networks share a layer start with the same weights in it, whatever layers one
    of them has besides.

    Args:
        network: is filled in place.
        scheme: one of the four.
        generator: draws one number, and moves on.
    """
    number = int(torch.randint(2**63 - 1, (), generator=generator))
    *_, classifier = (layer for layer in network.modules() if isinstance(layer, WEIGHED))
    for name, layer in network.named_modules():
        streams = _Streams(number, _shared_name(name, layer))
        if isinstance(layer, WEIGHED):
            _fill(layer, scheme, layer is not classifier, streams)
        elif isinstance(layer, PositionEmbedding):
            nn.init.normal_(layer.weight, std=0.02, generator=streams.of("weight"))


class _Streams:
    """The streams from which the parameters of one layer are drawn."""

    def __init__(self, number: int, layer: str) -> None:
        self._number, self._layer = number, layer

    def of(self, parameter: str) -> torch.Generator:
        """Return the stream of a parameter."""
        return torch_stream(self._number, f"{self._layer}.{parameter}")


def _shared_name(name: str, layer: nn.Module) -> str:
    """Return the name that a layer has in the networks of all recipes.

    In networks of ours that is its own name. In others, `fl.nn.convert` may put a convolution into
    a part of its own, with a normalizer behind it, and notes down the name that it had before.
    """
    return getattr(layer, "name_before", name)


def _fill(layer: WEIGHED, scheme: Scheme, hidden: bool, streams: _Streams) -> None:
    generator = streams.of("weight")
    if scheme == "torch":
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)  # = U(∓1/√fan_in)
    else:
        gain = "relu" if scheme == "he" and hidden else "linear"
        nn.init.kaiming_normal_(layer.weight, nonlinearity=gain, generator=generator)
    if layer.bias is None:
        return
    if scheme == "torch":
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.bias, -bound, bound, generator=streams.of("bias"))
    else:
        nn.init.zeros_(layer.bias)
