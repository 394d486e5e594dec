"""All that a stranger brings, from a file that imports only `fl`, torch and NumPy."""

import numpy as np
import torch.nn.functional as F
from layers import Bend
from torch import nn

import fl


class Net(nn.Module):
    """Two convolutions with an activation of its own."""

    def __init__(self, shape, classes, width: int = 6):
        super().__init__()
        self.first = nn.Conv2d(shape[0], width, 3, padding=1, stride=2)
        self.second = nn.Conv2d(width, width, 3, padding=1, stride=2)
        self.bends = nn.ModuleList([Bend(width), Bend(width)])
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        for layer, bend in zip([self.first, self.second], self.bends, strict=True):
            x = bend(layer(x))
        return self.head(x.mean((2, 3)))


def focal(outputs, labels, gamma: float = 2.0):
    """(1 - p)^gamma · -log p of the right class."""
    likely = F.log_softmax(outputs, 1).gather(1, labels[:, None])[:, 0]
    return -((1 - likely.exp()) ** gamma) * likely


def confidence(outputs, labels):
    """How much probability the right class is given."""
    return outputs.softmax(1).gather(1, labels[:, None])[:, 0]


def stripes(examples: int = 400, noise: float = 0.3):
    """Stripes that run in one of four directions."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 2 * examples)
    across, down = np.meshgrid(np.arange(12), np.arange(12))
    angles = labels * np.pi / 4 + rng.normal(0, 0.1, len(labels))
    waves = np.sin(
        np.cos(angles)[:, None, None] * across
        + np.sin(angles)[:, None, None] * down
        + rng.uniform(0, 6, len(labels))[:, None, None]
    )
    images = (waves + rng.normal(0, noise, waves.shape)).astype(np.float32)[:, None]
    half = slice(examples), slice(examples, None)
    train, test = ((images[part], labels[part]) for part in half)
    return fl.Dataset(train=train, test=test, classes=["flat", "up", "steep", "down"])


def uneven(labels, clients, rng, first: float = 0.3):
    """The first client gets its share, the others the same of what is left."""
    order = rng.permutation(len(labels))
    own, rest = np.split(order, [int(first * len(order))])
    return [own, *np.array_split(rest, clients - 1)]


class Careful(fl.Strategy):
    """A server with momentum, whose clients remember where they went and lean that way."""

    kept = ("last",)

    def __init__(self, beta: float = 0.5, lean: float = 0.1):
        self.beta, self.lean = beta, lean

    def aggregate(self, gathered):
        step = gathered.mean - gathered.start
        step += self.beta * gathered.state.get("velocity", 0.0)
        gathered.state["velocity"] = step
        return gathered.start + step

    def correct(self, gradient, weights, start, vectors):
        gradient.sub_(vectors["last"], alpha=self.lean)

    def finish(self, done):
        done.vectors["last"] = done.weights - done.start
