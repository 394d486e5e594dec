"""Signals of a network in training: the batch in which it is measured, and the measurement."""

from dataclasses import astuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fl.config import Experiment
from fl.data import Batch, Dataset, Share, batches, load, validation
from fl.nn import probes
from fl.reproducibility.seeds import Step, stream
from fl.tasks import PLAIN, Objective
from fl.training.parameters import FlatNetwork


def draw(
    knobs: Experiment,
    dataset: Dataset,
    places: Int[Tensor, " examples"],
    *path: Step,
    noise: float = 0.0,
) -> Batch:
    """Draw the one batch that is measured, by the stream (seed, *path, "signals").

    Args:
        knobs: how many images, and how training augments them.
        dataset: whose training images they are.
        places: which training images to draw from; where they are fewer than asked for, all are
            taken.
        path: the stream's path.
        noise: as in `fl.data.Share`.
    """
    rng = stream(knobs.seed, *path, "signals")
    chosen = places[torch.from_numpy(rng.permutation(len(places))[: knobs.signals.images])]
    drawn = Share(dataset, train=chosen, held_out=places[:0], noise=noise)
    return next(batches(drawn, len(chosen), 1, rng, knobs.data.augment))


def layers(network: FlatNetwork, batch: Batch, objective: Objective = PLAIN) -> list[probes.Layer]:
    """Return what `fl.nn.probes.measure` returns, for a network on any device.

    The loss is that of evaluation, which knows of no client.
    """
    inputs, labels = (tensor.to(network.weights.device) for tensor in batch)
    with network.convolving(), network.alone():
        return probes.measure(network.module, inputs, labels, objective.mean)


def measure(network: FlatNetwork, batch: Batch, objective: Objective = PLAIN) -> probes.Signals:
    """Measure a network in a batch, and leave it as it is; see `fl.nn.probes`."""
    rows = [astuple(layer)[2:] for layer in layers(network, batch, objective)]
    return probes.Signals(len(batch[1]), np.array(rows, np.float64))  # None becomes NaN


def training_places(knobs: Experiment) -> Int[Tensor, " examples"]:
    """Return the places of the training images that are not kept for validation."""
    left = torch.ones(len(load(knobs).train), dtype=torch.bool)
    left[validation(knobs)] = False
    return left.nonzero().flatten()
