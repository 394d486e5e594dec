"""The batches of one client's round, straight from memory."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fl.data.augment import crop_flip
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
    *,
    augment: Literal["none", "crop-flip"] = "none",
    noise: float = 0.0,
) -> Iterator[Batch]:
    """Yield every image once an epoch, in a new order each time; the last batch may be smaller.

    Args:
        dataset: whose training split it is.
        indices: which of its examples.
        batch_size: examples a batch.
        epochs: passes over all of them.
        rng: orders, augmentation and noise.
        augment: what is done to images, see `fl.data.augment`.
        noise: standard deviation of Gaussian noise, where bytes run from 0 to 1.
    """
    block = batch_size * max(1, _BLOCK // batch_size)
    for _ in range(epochs):
        order = indices[torch.from_numpy(rng.permutation(len(indices)))]
        for part in order.split(block):
            images = dataset.train.images[part]
            if augment == "crop-flip":
                images = crop_flip(images, rng)
            inputs = dataset.inputs(images)
            if noise:
                inputs += dataset.on_inputs(noise) * torch.from_numpy(
                    rng.standard_normal(inputs.shape, np.float32)
                )
            labels = dataset.train.labels[part]
            yield from zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
