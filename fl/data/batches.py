"""The batches of one client's round, straight from memory."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fl.data.dataset import Dataset

Batch = tuple[Float[Tensor, "_ ..."], Int[Tensor, " _"]]
"""Inputs (batch, channels, *space) and labels (batch,); sizes differ from batch to batch."""

_BLOCK = 1024  # images turned into floats at a time: few calls, and memory that stays small


def batches(
    dataset: Dataset,
    indices: Int[Tensor, " examples"],
    batch_size: int,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield every image once an epoch, in a new order each time; the last batch may be smaller."""
    block = batch_size * max(1, _BLOCK // batch_size)
    for _ in range(epochs):
        order = indices[torch.from_numpy(rng.permutation(len(indices)))]
        for part in order.split(block):
            inputs = dataset.inputs(dataset.train.images[part])
            labels = dataset.train.labels[part]
            yield from zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
