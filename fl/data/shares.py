"""Load data sets by name, and decide which images each client holds."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import partitions
from fl.config import DEVICES, Data, Experiment, Partition, relevant
from fl.config.parsing import ConfigError, Value
from fl.data import catalogue, shards
from fl.data.dataset import DataNotHere, Dataset, Share
from fl.reproducibility.seeds import stream

Deal = tuple[Int[Tensor, " _"], ...]
"""For every client, in order, the indices of its images in the training split."""


@lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """Return a data set; a process holds it once, however many clients it simulates.

    A name is looked for in this order: the catalogue, ``hf:REPO`` (the Hugging Face hub),
    ``medmnist:NAME`` (a file that is on this machine), a path.

    Raises:
        ConfigError: there is no such data set, or its files are not what they should be.
        DataNotHere: its file is not on this machine.
    """
    if name == DEVICES:
        raise DataNotHere(
            f"data.name={DEVICES}: the images are on devices, and none are here; "
            "see docs/guide/devices.md"
        )
    if name in catalogue.CATALOGUE:
        return catalogue.read(catalogue.CATALOGUE[name])
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        from fl.data.formats import hub  # readers that a known data set does not need

        return hub(rest)
    path = _medmnist(rest) if kind == "medmnist" and rest else Path(name)
    if not path.exists():
        return catalogue.read(catalogue.find(name))  # which says what is near
    from fl.data.formats import read

    return read(path)


def _medmnist(name: str) -> Path:
    """Return the file of a MedMNIST set, from where MedMNIST's own package puts it, or the cache.

    Raises:
        DataNotHere: it is in neither; ConfigError: that is no name.
    """
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"data.name=medmnist:{name}: expected a name such as organmnist3d")
    places = Path.home() / ".medmnist" / f"{name}.npz", catalogue.place(name)
    if found := next((path for path in places if path.is_file()), None):
        return found
    raise DataNotHere(
        f"data set medmnist:{name} is not on this machine; "
        f"put {name}.npz (medmnist.com) at {places[0]}"
    )


def deal(knobs: Experiment) -> Deal:
    """Deal a data set's training images to clients, by the stream (seed, "deal").

    The images of `data.validation` are nobody's.

    Raises:
        ConfigError: the partition can't be made from so many images.
    """
    return _deal(knobs.data, knobs.partition, knobs.seed)


def validation(knobs: Experiment) -> Int[Tensor, " examples"]:
    """Return the places of the training images that the server keeps to choose the best round."""
    if knobs.data.name == DEVICES:
        return torch.empty(0, dtype=torch.int64)
    kept, _ = _kept_and_dealt(knobs.data, knobs.seed)
    return torch.from_numpy(kept)


def _kept_and_dealt(data: Data, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the server's validation images and of all others, each sorted."""
    order = stream(seed, "validation").permutation(len(load(data.name).train))
    kept = round(data.validation * len(order))
    return np.sort(order[:kept]), np.sort(order[kept:])


@lru_cache(maxsize=8)
def _deal(data: Data, partition: Partition, seed: int) -> Deal:
    train, (_, places) = load(data.name).train, _kept_and_dealt(data, seed)
    labels = train.labels.numpy()[places]
    domains = None if train.domains is None else train.domains.numpy()[places]
    try:
        parts = _dealt(labels, domains, partition, stream(seed, "deal"))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tuple(torch.from_numpy(places[part]) for part in parts)


@lru_cache(maxsize=8)
def _held_out(data: Data, partition: Partition, seed: int) -> tuple[Deal, Deal]:
    parts = [part.numpy() for part in _deal(data, partition, seed)]
    sides = partitions.hold_out(parts, partition.held_out, stream(seed, "held-out"))
    train, held = (tuple(torch.from_numpy(part) for part in side) for side in sides)
    return train, held


def _dealt(
    labels: np.ndarray, domains: np.ndarray | None, knobs: Partition, rng: np.random.Generator
) -> list[np.ndarray]:
    clients = knobs.clients
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
            if domains is None:
                raise ValueError(
                    "partition.kind is natural, but the data set does not say whose each image "
                    "is: choose one that does, or another partition.kind"
                )
            return partitions.natural(labels, domains, clients, knobs.alpha, knobs.min_size, rng)
        case unknown:
            raise ValueError(f"partition.kind={unknown} is not known here")


def share(node_config: Mapping[str, object], knobs: Experiment) -> Share:
    """Return a node's images: what lies at its `data-path`, or else what is dealt to it.

    At a `data-path` is a shard of the run's own deal, or a data set of the device's own, in any
    layout that is read here: its training split is trained on, the other kept to score networks.

    Raises:
        ConfigError: the node does not say which client it is, or its files are not what they
            should be.
    """
    number, clients = node_config.get("partition-id"), knobs.partition.clients
    if not isinstance(number, int) or not 0 <= number < clients:
        raise ConfigError(f"node config has partition-id={number!r}, expected 0 to {clients - 1}")
    if others := {node_config.get("num-partitions", clients)} - {clients}:
        raise ConfigError(f"node config has num-partitions={others.pop()!r}, expected {clients}")
    if path := node_config.get("data-path"):
        return _brought(Path(str(path)), number, knobs)
    train, held_out = _held_out(knobs.data, knobs.partition, knobs.seed)
    noise = 0.0
    if knobs.partition.kind == "feature-noise":
        noise = float(partitions.noise_levels(clients, knobs.partition.noise)[number])
    return Share(load(knobs.data.name), train[number], held_out[number], noise)


def write_shard(folder: Path, number: int, knobs: Experiment) -> Path:
    """Write what a client is dealt to a folder, as its device's `data-path`; returns the file.

    Raises:
        ConfigError: there is no such client, or the data can't be dealt like that.
        OSError: the folder can't be written to, or the disk is full.
    """
    return shards.write(folder, share({"partition-id": number}, knobs), _law(number, knobs))


def _brought(path: Path, number: int, knobs: Experiment) -> Share:
    """Return what a device has brought.

    Raises:
        ConfigError: nothing readable is there, or it is a shard of another deal.
    """
    if not shards.holds(path):
        return _own(path, knobs.data.classes)
    found, law = shards.read(path)
    asked = {} if knobs.data.name == DEVICES else _law(number, knobs)
    for key, value in asked.items():
        if law.get(key) != value:
            raise ConfigError(
                f"{path} was dealt with {key}={law.get(key)}, but here it is {value}; deal anew, "
                f"or set data.name={DEVICES} to train on whatever the devices hold"
            )
    return found


@lru_cache(maxsize=2)
def _own(path: Path, classes: str) -> Share:
    from fl.data.formats import read  # readers that a shard does not need

    dataset, nobody = read(path, classes), torch.empty(0, dtype=torch.int64)
    return Share(dataset, torch.arange(len(dataset.train)), nobody, 0.0, "own")


def _law(number: int, knobs: Experiment) -> dict[str, Value]:
    """Return all that a client's share depends on."""
    flat = {k: v for k, v in relevant(knobs.to_flat()).items() if k.startswith("partition.")}
    data = {"data.name": knobs.data.name, "data.validation": knobs.data.validation}
    return {"partition-id": number, "seed": knobs.seed, **data, **flat}
