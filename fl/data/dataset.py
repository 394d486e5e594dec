"""A data set: examples, labels, and what turns examples into inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fl.config.parsing import ConfigError
from fl.data.augment import crop_flip
from fl.reproducibility.errors import as_told
from fl.reproducibility.files import fingerprint


class DataNotHere(ConfigError):
    """A data set that is known, and whose file is not on this machine."""


class Form(NamedTuple):
    """What a network has to know of the examples that it is for."""

    shape: tuple[int, ...]
    """(channels, *space)."""
    classes: int
    """Of labels; or how many numbers each example's label has."""

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} of {self.classes} classes"


def in_words(shape: tuple[int, ...]) -> str:
    """Say what examples of a shape (channels, *space) are: "grey images of 28 × 28"."""
    channels, *space = shape
    size = " × ".join(map(str, space))
    if len(space) == 1:
        return f"{channels} channel{'s' * (channels != 1)} of length {size}"
    what = {2: "images", 3: "volumes"}.get(len(space), "examples")
    if channels == 1:
        return f"{'grey ' if len(space) == 2 else ''}{what} of {size}"
    return f"{what} of {size} with {channels} channels"


def said(told: Mapping) -> str:
    """Say in one line what `Dataset.told` returns: what was read, as what, and from where."""
    names, most = [str(name) for name in told["classes"]], 10
    listed = ", ".join(names[:most]) + (", …" if len(names) > most else "")
    return (
        f"data: {told['examples']}, {told['dtype']}, each channel standardized; {told['train']:,} "
        f"to train and {told['test']:,} to test; {len(names)} classes ({listed}); from "
        f"{told['source']}"
    )


@dataclass(frozen=True, eq=False)
class Split:
    """Examples, labels, and where it is known the domain that each example is from."""

    images: Tensor
    """(examples, channels, *space): pixels or voxels as bytes, or signals as float32."""
    labels: Shaped[Tensor, "examples ..."]
    """(examples, ...): classes as int64, numbers, or masks; `fl.tasks` says what a task takes."""
    domains: Int[Tensor, " examples"] | None = None
    """Whose each example is (a writer, a device, a vendor), as a place in `Dataset.domains`."""

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, places: Int[Tensor, " chosen"]) -> "Split":
        """Return a copy of the examples at these places."""
        domains = None if self.domains is None else self.domains[places]
        return Split(self.images[places], self.labels[places], domains)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test split in memory, bytes as bytes; all simulated clients share it."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    licence: str
    source: str
    domains: tuple[str, ...] = ()
    """Names of the natural owners of examples; empty where none are known."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """`mean` and `std` where the training split is a part of a larger one, whose they are."""

    def __post_init__(self) -> None:
        """Make names that files tell such as a terminal, a page and a table can take."""
        for key in ("name", "licence", "source"):
            object.__setattr__(self, key, as_told(getattr(self, key)))
        for key in ("classes", "domains"):
            told = tuple(map(as_told, getattr(self, key)))
            if len(set(told)) < len(told):
                twice = next(name for place, name in enumerate(told) if name in told[:place])
                raise ConfigError(
                    f"{self.name}: two of its {key} are called {twice!r}, where what can't be seen "
                    "is written out and blanks at the ends do not count; rename one"
                )
            object.__setattr__(self, key, told)

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} to train and {len(self.test):,} to test"
        return f"<Dataset {self.name}: {in_words(self.shape)}, {sizes}>"

    @classmethod
    def nothing(cls, name: str, form: Form) -> "Dataset":
        """Return a data set that says what examples are, and has none."""
        empty = Split(torch.empty(0, *form.shape, dtype=torch.uint8), torch.empty(0).long())
        return cls(name, empty, empty, tuple(map(str, range(form.classes))), "none", "nowhere")

    @property
    def form(self) -> Form:
        """Shape of an example, and how many classes there are."""
        return Form(self.shape, len(self.classes))

    @property
    def channels(self) -> int:
        """Channels of an example: 1 is grey."""
        return self.train.images.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *space) of an example."""
        return tuple(self.train.images.shape[1:])

    @property
    def dims(self) -> int:
        """Dimensions of space: 1 for signals, 2 for images, 3 for volumes."""
        return self.train.images.ndim - 2

    @cached_property
    def mean(self) -> Float[Tensor, " channels"]:
        """Mean of each channel over the training split, in the units of the data (0 to 255)."""
        return self._moments[0]

    @cached_property
    def std(self) -> Float[Tensor, " channels"]:
        """Standard deviation of each channel, in the same units; 1 for a constant channel."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        channels = self.train.images.transpose(0, 1)
        found = self.moments or zip(*map(_moments, channels), strict=True)
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in found)
        return mean, torch.where(std > 0, std, 1.0)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        shape = (-1, *(1,) * self.dims)
        scale, shift = 1 / self.std, self.mean / self.std
        return scale.float().view(shape), shift.float().view(shape)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over both splits: two data sets with one fingerprint hold the same bytes."""
        return fingerprint(self.arrays())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that both splits hold: ``train_images``, ``train_labels``, ``test_...``."""
        return {
            f"{name}_{part}": tensor.numpy()
            for name, split in (("train", self.train), ("test", self.test))
            for part in ("images", "labels", "domains")
            if (tensor := getattr(split, part)) is not None
        }

    def told(self) -> dict[str, object]:
        """Return all that was decided when the data were read, by name, as JSON can hold it."""
        return {
            "examples": in_words(self.shape),
            "shape": list(self.shape),
            "dtype": str(self.train.images.dtype).removeprefix("torch."),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "train": len(self.train),
            "test": len(self.test),
            "classes": list(self.classes),
            "domains": len(self.domains),
            "source": self.source,
        }

    def inputs(self, images: Tensor) -> Float[Tensor, "batch channels *space"]:
        """Turn examples into network inputs, channel by channel: (x - mean) / std."""
        scale, shift = self._scale_and_shift
        return images.to(torch.float32, copy=True).mul_(scale).sub_(shift)

    def on_inputs(self, noise: float) -> Tensor:
        """Return a standard deviation on the scale of the inputs, channel by channel.

        It is given where bytes run from 0 to 1; of signals, in their own units.
        """
        whole = 255 if self.train.images.dtype == torch.uint8 else 1
        return self._scale_and_shift[0] * (noise * whole)


@dataclass(frozen=True, eq=False)
class Share:
    """A node's images."""

    dataset: Dataset
    """Where they are."""
    train: Int[Tensor, " _"]
    """Places of those to train on, in the training split."""
    held_out: Int[Tensor, " _"]
    """Places there of those kept from training; none where the files have a split for that."""
    noise: float
    """Standard deviation of the noise on its inputs, on their scale from 0 to 1."""
    source: Literal["dealt", "shard", "own"] = "dealt"
    """Dealt here, or from a file that was written by whoever dealt, or files of its own."""
    dealt_from: str = ""
    """Of a shard: `Dataset.fingerprint` of the whole data set that was dealt, where it says so."""

    @cached_property
    def scored(self) -> Split:
        """Kept from training, to score networks on the client's own images."""
        return self.dataset.test if self.source == "own" else self.dataset.train.only(self.held_out)


Batch = tuple[Float[Tensor, "_ ..."], Shaped[Tensor, "_ ..."]]
"""Inputs (batch, channels, *space) and labels (batch, ...); sizes differ from batch to batch."""


_BLOCK = 1024
"""About how many images are turned into floats at a time, so that calls are few and memory is
small."""


def batches(
    share: Share,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator,
    augment: Literal["none", "crop-flip"] = "none",
) -> Iterator[Batch]:
    """Yield every image once an epoch, in a new order each time; the last batch may be smaller.

    Args:
        share: the node's images and their noise; its held-out images are not touched.
        batch_size: examples a batch.
        epochs: passes over all examples.
        rng: draws orders, augmentation and noise.
        augment: what is done to images, see `fl.data.augment`.
    """
    dataset, indices = share.dataset, share.train
    block = batch_size * max(1, _BLOCK // batch_size)
    for _ in range(epochs):
        order = indices[torch.from_numpy(rng.permutation(len(indices)))]
        for part in order.split(block):
            images = dataset.train.images[part]
            if augment == "crop-flip":
                images = crop_flip(images, rng)
            inputs = dataset.inputs(images)
            if share.noise:
                inputs += dataset.on_inputs(share.noise) * torch.from_numpy(
                    rng.standard_normal(inputs.shape, np.float32)
                )
            labels = dataset.train.labels[part]
            yield from zip(inputs.split(batch_size), labels.split(batch_size), strict=True)


def _moments(channel: Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of a channel's values, exactly for bytes."""
    if channel.dtype == torch.uint8:
        counts = torch.zeros(256, dtype=torch.int64)
        for part in channel.split(4096):  # bincount takes 8 bytes a value
            counts += part.reshape(-1).bincount(minlength=256)
        values = torch.arange(256, dtype=torch.float64)
        mean = float((counts * values).sum() / counts.sum())
        return mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5
    values = channel.double()
    return float(values.mean()), float(values.std(correction=0))
