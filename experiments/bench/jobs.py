"""The jobs that contenders are timed on: each is an experiment, and so the same for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fl.config import Experiment
from fl.config.parsing import ConfigError, Value
from fl.data import deal, load
from fl.data.catalogue import place
from fl.data.fashion_mnist_small import NAME as CLOTHES
from fl.nn import build
from fl.reproducibility.seeds import torch_stream
from fl.training import parameters

CLASSES = 10
PICTURES = "3x32x32"
"""Synthetic pictures in colour: a pattern a class, and noise."""

MISSION = "mission"
"""The job that this project exists for: see `mission`."""
JOBS: dict[str, tuple[str, Mapping[str, Value]]] = {
    MISSION: ("cifar10", {}),
    "cnn": (PICTURES, {"network.kind": "cnn", "recipe": "none"}),
    "plainnet-16": (CLOTHES, {"network.kind": "plainnet", "network.depth": 16}),
    "nf-resnet-18": (
        CLOTHES,
        {
            "network.kind": "resnet-v2",
            "network.depth": 18,
            "network.width": 16,
            "recipe": "nf",
        },
    ),
    "gn-resnet-18": (
        CLOTHES,
        {
            "network.kind": "resnet",
            "network.depth": 18,
            "network.width": 16,
            "recipe": "groupnorm",
        },
    ),
}
"""The images and the knobs of the network, by the job's name."""


@dataclass(frozen=True)
class Size:
    """The size of a job's rounds."""

    clients: int = 10
    """Clients per round."""
    images: int = 50
    """Images per client; the mean where clients are unequal."""
    unequal: bool = False
    """Whether clients hold Dirichlet(0.3) parts of each class, rather than equal parts."""
    rounds: int = 5
    """Timed rounds. One more round before them is not timed."""
    of: int | None = None
    """All clients, from whom those of a round are drawn. None: as many as in a round."""

    @property
    def everyone(self) -> int:
        """Number of all clients."""
        return self.of or self.clients

    def __post_init__(self) -> None:
        if self.everyone < self.clients:
            raise ConfigError(
                f"--of {self.of} is less than --clients {self.clients}, who are drawn from them; "
                "raise --of"
            )


def job(
    name: str,
    batch_size: int,
    size: Size,
    folder: Path,
    changes: Mapping[str, Value] | None = None,
) -> Experiment:
    """Return a job, with its images in a folder.

    Plain SGD, one epoch, no clipping, and few test images; but see `mission`.

    Args:
        name: a row of the table.
        batch_size: images a step.
        size: how much a round is.
        folder: for its images.
        changes: knobs in which it differs from the table.

    Raises:
        ConfigError: there are too few images for ten classes, or for as many clients; or there is
            no such network or device.
    """
    pictures, network = JOBS[name]
    if name == MISSION:
        return _built(mission(batch_size, size, changes or {}))
    if (count := size.everyone * size.images) < CLASSES:
        raise ConfigError(
            f"{count} images of all clients can't be of {CLASSES} classes; raise --images"
        )
    path = folder / f"{pictures}-{count}.npz"
    if not path.exists():
        np.savez(path, **_arrays(pictures, count))  # pyrefly: ignore
    knobs = Experiment.from_flat(
        {
            "recipe": "zc-swish",
            "data.name": str(path),
            "partition.kind": "dirichlet" if size.unequal else "iid",
            "partition.alpha": 0.3,
            "partition.min-size": 1,
            "partition.clients": size.everyone,
            "sampling.clients": size.clients,
            "client.batch-size": batch_size,
            "client.lr": 0.02,
            "client.clip": "none",
            "device": "cpu",
            "rounds": size.rounds + 1,
            **network,
            **(changes or {}),
        }
    )
    return _built(knobs)


def mission(batch_size: int, size: Size, changes: Mapping[str, Value]) -> Experiment:
    """Return the mission's job: a hundred clients of Dirichlet(0.3) parts, ten of them a round.

    Clipped SGD on all images of CIFAR-10 or, where it was never fetched, of Fashion-MNIST. All that
    a job has besides is as `fednf run` has it by default.

    Args:
        batch_size: images a step.
        size: its rounds, clients a round, and all clients if it says how many.
        changes: knobs in which it differs.
    """
    name = JOBS[MISSION][0]
    return Experiment.from_flat(
        {
            "data.name": name if place(name).exists() else "fashion-mnist",
            "partition.kind": "dirichlet",
            "partition.alpha": 0.3,
            "partition.clients": size.of or max(100, size.clients),
            "sampling.clients": size.clients,
            "client.batch-size": batch_size,
            "client.clip": "norm:5",
            "device": "cpu",
            "rounds": size.rounds + 1,
            **changes,
        }
    )


def _built(knobs: Experiment) -> Experiment:
    """Return the knobs of a job, once its clients and its network can be made."""
    deal(knobs)
    parameters.build_network(knobs, torch_stream(knobs.seeds["init"], "init"))
    return knobs


def network(knobs: Experiment) -> nn.Module:
    """Return the job's network with its initial weights, the same for every contender."""
    dataset, generator = load(knobs), torch_stream(knobs.seeds["init"], "init")
    return build(knobs.network, knobs.recipe, dataset.shape, len(dataset.classes), generator)


def flops_per_image(knobs: Experiment) -> float:
    """Return the floating-point operations of a step per image: forward and backward.

    As `torch.utils.flop_counter` has them: matrix products and convolutions, a multiplication and
    an addition being two.
    """
    net, size = network(knobs), knobs.client.batch_size
    images = torch.zeros(size, *load(knobs).shape)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(images), torch.zeros(size, dtype=torch.long)).backward()
    return counter.get_total_flops() / size


def _arrays(pictures: str, count: int) -> dict[str, np.ndarray]:
    """Return training images and a test image of each class, as bytes with channels last."""
    labels = np.arange(count + CLASSES) % CLASSES
    labels[count:] = np.arange(CLASSES)
    if pictures == PICTURES:
        rng = np.random.default_rng(1)
        patterns = rng.normal(0, 30, (CLASSES, 32, 32, 3))
        images = rng.normal(128, 40, (len(labels), 32, 32, 3)) + patterns[labels]
        images = images.clip(0, 255).astype(np.uint8)
    else:
        train = load(pictures).train
        of_class = [np.flatnonzero(train.labels.numpy() == label) for label in range(CLASSES)]
        places = [of_class[c][i // CLASSES % len(of_class[c])] for i, c in enumerate(labels)]
        images = train.images[places].movedim(1, -1).numpy()
    return {
        "x_train": images[:count],
        "y_train": labels[:count],
        "x_test": images[count:],
        "y_test": labels[count:],
    }
