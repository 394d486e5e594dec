"""Data sets and a stranger's pixel-wise task, made from what is shipped."""

from pathlib import Path

import torch

from fl.data import Dataset, Split, catalogue, load
from fl.data.catalogue import Entry

PIXELWISE = '''
import torch
import torch.nn.functional as F
from torch import nn

import fl


def dice(outputs, labels):
    """Twice the overlap of bright pixels, over all that are called bright or are."""
    bright = outputs.argmax(1)
    both = (bright * labels).flatten(1).sum(1)
    return (2 * both + 1) / ((bright + labels).flatten(1).sum(1) + 1)


dice.fraction = True


class Pixelwise(fl.Task):
    """The class of each pixel: masks (batch, *space), outputs (batch, classes, *space)."""

    def __init__(self, dark: float = 1.0):
        self.dark = dark

    def metrics(self):
        return [dice, "macro-f1"]

    def loss(self, outputs, labels):
        logs = outputs.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        weights = torch.where(labels > 0, 1.0, self.dark)
        return -(weights * logs).flatten(1).mean(1)

    def check(self, labels, classes):
        if labels.ndim < 3:
            raise ValueError(f"labels have the shape {tuple(labels.shape)}, expected masks")


class Net(nn.Module):
    """Two convolutions of three pixels."""

    def __init__(self, shape, classes):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(shape) - 1]
        self.first, self.last = conv(shape[0], 4, 3, padding=1), conv(4, classes, 3, padding=1)

    def forward(self, x):
        return self.last(F.silu(self.first(x)))
'''


def stranger(folder: Path) -> Path:
    """Write the stranger's file."""
    path = folder / "pixels.py"
    path.write_text(PIXELWISE)
    return path


LOSSES = """
def hinge(outputs, labels):
    own = outputs.gather(1, labels[:, None])
    return (1 + outputs - own).clamp(min=0).mean(1)


def sure(outputs, labels):
    return outputs.softmax(1).gather(1, labels[:, None])[:, 0]


sure.fraction = True
"""


def losses(folder: Path) -> Path:
    """Write a file with a stranger's loss and metric."""
    path = folder / "losses.py"
    path.write_text(LOSSES)
    return path


def catalogued(monkeypatch, name: str, dataset: Dataset) -> str:
    """Let a data set be found by a name that no other test has."""
    entry = Entry(name, "", 0, 0, (), dataset.classes, "", "")
    found = catalogue.read
    monkeypatch.setitem(catalogue.CATALOGUE, name, entry)
    monkeypatch.setattr(
        catalogue, "read", lambda entry: dataset if entry.name == name else found(entry)
    )
    return name


def relabelled(label, classes: tuple[str, ...], train: int = 600, test: int = 300) -> Dataset:
    """Return clothes with other labels: label(images as floats from 0 to 1, classes)."""
    clothes = load("fashion-mnist-small")
    splits = [
        Split(split.images[:count], label(split.images[:count].float() / 255, split.labels[:count]))
        for split, count in ((clothes.train, train), (clothes.test, test))
    ]
    return Dataset("toy", *splits, classes, "", "")


def brightness(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean brightness of each image."""
    return images.flatten(1).mean(1)


def moments(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return mean and deviation of each image: two targets."""
    return torch.stack([images.flatten(1).mean(1), images.flatten(1).std(1)], dim=1)


ATTRIBUTES = ("worn above", "worn on feet", "with sleeves")


def attributes(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what a class of clothes says: worn above the waist, on feet, with sleeves."""
    sets = ((0, 2, 3, 4, 6), (5, 7, 9), (2, 4, 6))
    return torch.stack([torch.isin(labels, torch.tensor(s)) for s in sets], 1).long()


def bright(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return which pixels are bright."""
    return (images[:, 0] > 0.5).long()


def volumes(dataset: Dataset) -> Dataset:
    """Return a data set whose images are the slices of volumes: six of them one above another."""

    def stacked(split: Split) -> Split:
        count = len(split) // 6
        images = split.images[: 6 * count, :, ::4, ::4].reshape(count, 1, 6, 7, 7)
        return Split(images, split.labels[: 6 * count, ::4, ::4].reshape(count, 6, 7, 7))

    parts = stacked(dataset.train), stacked(dataset.test)
    return Dataset("toy", *parts, dataset.classes, "", "")
