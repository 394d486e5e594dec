"""What a data set is: images in bytes, labels, and the figures that turn bytes into inputs."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fl.files import fingerprint


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels that belong together."""

    images: UInt8[Tensor, "examples channels *space"]
    labels: Int[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split in memory, as bytes; all simulated clients share this copy."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: float
    """Mean of all training pixels, on a scale of 0 to 1."""
    std: float
    """Standard deviation of all training pixels, on the same scale."""
    licence: str
    source: str

    @property
    def channels(self) -> int:
        """Channels of an image: 1 is grey."""
        return self.train.images.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over both splits: two data sets with one fingerprint hold the same bytes."""
        return fingerprint(
            {
                f"{name}_{part}": getattr(split, part).numpy()
                for name, split in (("train", self.train), ("test", self.test))
                for part in ("images", "labels")
            }
        )

    def inputs(
        self, images: UInt8[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Turn bytes into network inputs: (x / 255 - mean) / std."""
        return images.to(torch.float32).mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
