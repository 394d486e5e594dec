"""How many lanes the memory of a GPU has room for."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fl.data import Form
from fl.flat import FlatNetwork

_ROWS = 12
"""Rows of weights that a lane takes at most: weights, start, gradients as parts and as a row, two
moments of Adam, what a recorded pass copies its arguments to, and what is in between."""
_BESIDES = 3
"""What a pass holds at once, as a multiple of what the forward pass keeps for the backward."""
_SHARE = 0.5
"""Of the free memory, which others may want, too."""


def lanes(network: FlatNetwork, form: Form, batch_size: int, free: int) -> int:
    """Return how many lanes half of the free memory holds, at least 1.

    Bytes of a lane are 12 rows of weights and three times what autograd keeps of a forward pass
    over a batch: bounds that are derived (ours).

    Args:
        network: its statistics move.
        form: of the images.
        batch_size: images a step.
        free: bytes.
    """
    bytes_of_lane = _ROWS * network.weights.nbytes + _BESIDES * _kept(network, form, batch_size)
    return max(1, int(_SHARE * free) // bytes_of_lane)


def _kept(network: FlatNetwork, form: Form, batch_size: int) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    device = network.weights.device
    images = torch.zeros(batch_size, *form.shape, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        F.cross_entropy(network.module(images), labels)
    return kept
