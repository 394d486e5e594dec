"""Layers without initial weights."""

from typing import TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def unset(layer: type[Layer], *sizes: int, **options: object) -> Layer:
    """Return a layer, without parts or buffers, whose parameters hold whatever was in memory.

    PyTorch would draw them from its global generator. Its own `skip_init` does what this does, and
    takes half a second for it: it loads the algebra that PyTorch has for unknown shapes.
    """
    made = layer(*sizes, device="meta", **options)
    for name, parameter in list(made.named_parameters()):
        made.register_parameter(name, nn.Parameter(torch.empty(parameter.shape)))
    return made
