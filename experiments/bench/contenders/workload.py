"""What a contender that is not ours is given: the network, and all images as inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.jobs import network
from fl.config import Experiment, parse_clip
from fl.data import deal, load
from fl.reproducibility.seeds import stream
from strategies.serving.server import Sampler

_TESTED = 250  # images of a batch


@dataclass(frozen=True, eq=False)
class Workload:
    """A job in plain PyTorch's terms."""

    network: nn.Module
    clients: tuple[tuple[Tensor, Tensor], ...]
    """Of every client, its images as float inputs, and their labels."""
    test: tuple[Tensor, Tensor]
    """Likewise the images on which every round's network is tested."""

    @cached_property
    def sizes(self) -> list[int]:
        """Images of each client."""
        return [len(labels) for _, labels in self.clients]


@lru_cache(maxsize=1)
def workload(knobs: Experiment) -> Workload:
    """Return a job's network and images; a process makes them once."""
    dataset = load(knobs)
    train, test = dataset.train, dataset.test
    clients = ((dataset.inputs(train.images[mine]), train.labels[mine]) for mine in deal(knobs))
    return Workload(network(knobs), tuple(clients), (dataset.inputs(test.images), test.labels))


def draws(knobs: Experiment) -> Iterator[list[int]]:
    """Draw the clients of every round as our server does, so that all have the same work."""
    everyone = range(knobs.partition.clients)
    sampler = Sampler(
        clients=knobs.sampling.clients,
        nodes=dict(zip(everyone, everyone, strict=True)),
        available=lambda _: everyone,
        stream=partial(stream, knobs.seeds["sampling"], "sampling", "round"),
    )
    for number in range(1, knobs.rounds + 1):
        yield sampler.draw(number)


def clip(knobs: Experiment) -> float | None:
    """Return the bound on the norm of a job's gradients; None where there is none.

    Raises:
        ValueError: they are clipped unit by unit, which only ours can.
    """
    kind, bound = parse_clip(knobs.client.clip)
    if kind not in ("none", "norm"):
        raise ValueError(f"client.clip={knobs.client.clip} is none of what a loop here can")
    return bound if kind == "norm" else None


def loss(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    return F.cross_entropy(net(images), labels)


@torch.no_grad()
def right(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return how many images a network classifies rightly, tested in batches of 250."""
    net.eval()
    pairs = zip(images.split(_TESTED), labels.split(_TESTED), strict=True)
    found = sum(int((net(some).argmax(1) == classes).sum()) for some, classes in pairs)
    net.train()
    return found
