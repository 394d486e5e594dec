"""Data sets by name, and who holds what: the one place that decides a client's images."""

import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import assert_never

import torch
from jaxtyping import Int
from torch import Tensor

import partitions
from fl.config import Experiment, Partition
from fl.data import fashion_mnist_small
from fl.data.dataset import Dataset
from fl.seeds import stream
from fl.settings import ConfigError

DATASETS: dict[str, Callable[[], Dataset]] = {
    fashion_mnist_small.NAME: fashion_mnist_small.load,
}

Deal = tuple[Int[Tensor, " examples"], ...]
"""For every client, in order, the places of its images in the training split."""


@lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """Return a data set by name; a process holds it once, however many clients it simulates.

    Raises:
        ConfigError: there is no such data set.
        FileNotFoundError: its file is not on this machine.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(DATASETS)}"
        raise ConfigError(f"data.name={name}: no such data set; {hint}")
    return DATASETS[name]()


@lru_cache(maxsize=8)
def deal(data: str, partition: Partition, seed: int) -> Deal:
    """Deal a data set's training images to clients, by the stream (seed, "deal").

    Raises:
        ConfigError: the partition can't be made from so many images.
    """
    labels = load(data).train.labels.numpy()
    rng = stream(seed, "deal")
    try:
        match partition.kind:
            case "iid":
                parts = partitions.iid(labels, partition.clients, rng)
            case "dirichlet":
                parts = partitions.dirichlet(
                    labels, partition.clients, partition.alpha, partition.min_size, rng
                )
            case "dirichlet-equal":
                parts = partitions.dirichlet_equal(labels, partition.clients, partition.alpha, rng)
            case unknown:
                assert_never(unknown)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tuple(torch.from_numpy(part) for part in parts)


def share(node_config: Mapping[str, object], knobs: Experiment) -> Int[Tensor, " examples"]:
    """Return the places of a node's images: it is dealt the share of its partition id.

    Raises:
        ConfigError: the node does not say which share is its own.
    """
    number = node_config.get("partition-id")
    clients = knobs.partition.clients
    if not isinstance(number, int) or not 0 <= number < clients:
        raise ConfigError(f"node config has partition-id={number!r}, expected 0 to {clients - 1}")
    return deal(knobs.data.name, knobs.partition, knobs.seed)[number]
