"""What a contender that is not ours is given: the network, and every client's images as inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.jobs import network
from fl.config import Experiment
from fl.data import deal, load
from fl.reproducibility.seeds import stream


@dataclass(frozen=True, eq=False)
class Workload:
    """A job in plain PyTorch's terms."""

    network: nn.Module
    clients: tuple[tuple[Tensor, Tensor], ...]
    """Of every client, its images as float inputs, and their labels."""

    @cached_property
    def sizes(self) -> list[int]:
        """Images of each client."""
        return [len(labels) for _, labels in self.clients]


@lru_cache(maxsize=1)
def workload(knobs: Experiment) -> Workload:
    """Return a job's network and images; a process makes them once."""
    dataset = load(knobs)
    images, labels = dataset.inputs(dataset.train.images), dataset.train.labels
    return Workload(network(knobs), tuple((images[mine], labels[mine]) for mine in deal(knobs)))


def draws(knobs: Experiment) -> Iterator[list[int]]:
    """Draw the clients of every round, in order and without replacement."""
    rng = stream(knobs.seed, "bench", "draws")
    for _ in range(knobs.rounds):
        drawn = rng.choice(knobs.partition.clients, knobs.sampling.clients, replace=False)
        yield sorted(drawn.tolist())


def loss(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    return F.cross_entropy(net(images), labels)
