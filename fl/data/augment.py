"""Augmentation: a training image is never quite the same twice."""

import numpy as np
import torch
from torch import Tensor

PAD = 8
"""A side of S pixels is padded with S // PAD at both ends: 4 for CIFAR's 32."""


def crop_flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Return images cropped at random from their zero-padded selves, half of them mirrored.

    Every side is padded with an eighth of its length at both ends, the crop has the image's own
    shape, and the last axis is reversed with probability ½. Source: arXiv 1512.03385, section 4.2,
    whose 4 pixels for CIFAR's 32 are an eighth; other dimensions than 2 are ours.

    Args:
        images: (examples, channels, *space); left as it is.
        rng: all randomness.
    """
    count, _, *space = images.shape
    for axis, side in enumerate(space, start=2):
        pad = side // PAD
        offsets = torch.from_numpy(rng.integers(-pad, pad + 1, count))
        places = offsets[:, None] + torch.arange(side)
        if axis == images.ndim - 1:
            mirrored = torch.from_numpy(rng.random(count) < 0.5)
            places = torch.where(mirrored[:, None], places.flip(1), places)
        images = _take(images, axis, places)
    return images


def _take(images: Tensor, axis: int, places: Tensor) -> Tensor:
    """Take each image's own places along an axis; what lies outside is 0."""
    side = images.shape[axis]
    shape = [1] * images.ndim
    shape[0], shape[axis] = places.shape
    places = places.view(shape)
    inside = (places >= 0) & (places < side)
    taken = images.gather(axis, places.clamp(0, side - 1).expand_as(images))
    return taken * inside
