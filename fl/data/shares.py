"""Data sets by name, and who holds what: the one place that decides a client's images."""

import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import partitions
from fl.config import Partition
from fl.data import fashion_mnist_small
from fl.data.dataset import Dataset, Split
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
    try:
        parts = _dealt(load(data).train, partition, stream(seed, "deal"))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tuple(torch.from_numpy(part) for part in parts)


def _dealt(split: Split, knobs: Partition, rng: np.random.Generator) -> list[np.ndarray]:
    labels, clients = split.labels.numpy(), knobs.clients
    match knobs.kind:
        case "iid" | "feature-noise":
            return partitions.iid(labels, clients, rng)
        case "dirichlet":
            return partitions.dirichlet(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "dirichlet-equal":
            return partitions.dirichlet_equal(labels, clients, knobs.alpha, rng)
        case "dirichlet-balanced":
            return partitions.dirichlet_balanced(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "mixture":
            return partitions.mixture(
                labels, clients, knobs.alpha, knobs.quantity_alpha, knobs.min_size, rng
            )
        case "quantity":
            return partitions.quantity(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "shards":
            return partitions.shards(labels, clients, knobs.shards, rng)
        case "label-count":
            return partitions.label_count(labels, clients, knobs.labels, rng)
        case "natural":
            if split.domains is None:
                raise ValueError(
                    "partition.kind is natural, but the data set does not say whose each image "
                    "is: choose one that does, or another partition.kind"
                )
            domains = split.domains.numpy()
            return partitions.natural(labels, domains, clients, knobs.alpha, knobs.min_size, rng)
        case unknown:
            assert_never(unknown)


def share(
    node_config: Mapping[str, object], data: str, partition: Partition, seed: int
) -> Int[Tensor, " examples"]:
    """Return the places of a node's images: it is dealt the share of its partition id.

    Raises:
        ConfigError: the node does not say which share is its own.
    """
    number = node_config.get("partition-id")
    if not isinstance(number, int) or not 0 <= number < partition.clients:
        raise ConfigError(
            f"node config has partition-id={number!r}, expected 0 to {partition.clients - 1}"
        )
    return deal(data, partition, seed)[number]
