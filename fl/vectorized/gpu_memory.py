"""How many lanes the memory of a GPU has room for."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from fl.data import Form
from fl.training.parameters import FlatNetwork

_ROWS = 10
"""Of weights, that a lane takes besides: weights, start, gradients as parts and as a row, two
moments of Adam, and what is in between."""
_BESIDES = 3
"""What a pass holds at once, as a multiple of what the forward pass keeps for the backward. Each
width of pass is recorded by itself, and holds its own."""
_SHARE = 0.5
"""Of the memory: what is left is for PyTorch, evaluation and others."""


def lanes(network: FlatNetwork, form: Form, batch_size: int, passes: int, memory: int) -> int:
    """Return how many lanes half of a memory holds, at least 1.

    Bytes of a lane are taken to be 10 rows of weights and, for each width of pass, two rows and
    three times what autograd keeps of a forward pass over a batch: an estimate (ours).

    Args:
        network: its statistics move; it has no dropout.
        form: of the images.
        batch_size: images a step.
        passes: of so many widths.
        memory: in bytes.
    """
    row, kept = network.weights.nbytes, _kept(network, form, batch_size)
    return max(1, int(_SHARE * memory) // (_ROWS * row + passes * (2 * row + _BESIDES * kept)))


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
    hooks = saved_tensors_hooks(count, lambda tensor: tensor)
    with hooks, sdpa_kernel(SDPBackend.MATH):  # as `fl.vectorized.gradients` has it
        F.cross_entropy(network.module(images), labels)
    return kept
