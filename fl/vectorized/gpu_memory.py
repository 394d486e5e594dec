"""How many lanes the memory of a GPU has room for."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from fl.data import Form
from fl.training.parameters import FlatNetwork

_ROWS_PER_LANE = 10
"""Rows of weights that a lane takes outside of passes: weights, start, gradients as parts and as a
row, two moments of Adam, and intermediate results of the update."""
_PASS_FACTOR = 3
"""Memory of a pass, as a multiple of what its forward pass saves for the backward pass. The pass
for each padded batch size is recorded separately, and holds memory of its own."""
_USABLE_FRACTION = 0.5
"""Fraction of the memory that lanes may take. The rest is for PyTorch, evaluation and other
programs."""


def _of_first_class(outputs: Tensor) -> Tensor:
    return F.cross_entropy(outputs, torch.zeros(len(outputs), dtype=torch.long).to(outputs.device))


def lanes_that_fit(
    network: FlatNetwork,
    form: Form,
    batch_size: int,
    passes: int,
    memory: int,
    loss: Callable[[Tensor], Tensor] = _of_first_class,
) -> int:
    """Return how many lanes half of a memory holds, at least 1.

    A lane is taken to need 10 rows of weights and, for each padded batch size, two rows and three
    times what autograd saves of a forward pass over a batch. This is an estimate (ours).

    Args:
        network: must have no dropout; its running statistics are moved.
        form: shape of the images.
        batch_size: images a step.
        passes: how many padded batch sizes there are.
        memory: in bytes.
        loss: outputs of a batch -> its loss, whatever the labels.
    """
    row, saved = network.weights.nbytes, _saved_bytes(network, form, batch_size, loss)
    lane = _ROWS_PER_LANE * row + passes * (2 * row + _PASS_FACTOR * saved)
    return max(1, int(_USABLE_FRACTION * memory) // lane)


def _saved_bytes(
    network: FlatNetwork,
    form: Form,
    batch_size: int,
    loss: Callable[[Tensor], Tensor],
) -> int:
    """Return the bytes that a forward pass saves for the backward pass."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    device = network.weights.device
    images = torch.zeros(batch_size, *form.shape, device=device)
    hooks = saved_tensors_hooks(count, lambda tensor: tensor)
    with hooks, sdpa_kernel(SDPBackend.MATH):  # the same attention as `fl.vectorized.gradients`
        loss(network.module(images))
    return saved
