"""Load data sets by name, and decide which images each client holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import partitions
from fl.config import DEVICES, Experiment, Partition, components, relevant
from fl.config.parsing import ConfigError, Value
from fl.data import catalogue, deals, shards
from fl.data.dataset import Dataset, Share
from fl.reproducibility.seeds import stream
from fl.tasks import Task, objective

Deal = tuple[Int[Tensor, " _"], ...]
"""For every client, in order, the indices of its images in the training split."""


@dataclass(frozen=True)
class Source:
    """What a data set or a deal is made by: sources that are equal make the same."""

    name: str
    """A name of ours, or a component's."""
    options: str = ""
    """The component's own parameters."""
    code: str = ""
    """The component's file, and those that it imports."""
    components: str = field(default="", compare=False, repr=False)
    """All files of the experiment's components, among which it is found."""
    layout: str = "auto"
    """`data.layout`."""
    state: str = ""
    """Of the files, as they were last looked at, see `fl.data.own.changes`."""

    @classmethod
    def of(cls, knobs: Experiment, key: Literal["data.name", "partition.kind"]) -> "Source":
        """Return what a knob of an experiment names."""
        if key == "partition.kind":
            name, options, layout, state = knobs.partition.kind, knobs.partition.options, "auto", ""
        else:
            name, options, layout = knobs.data.name, knobs.data.options, knobs.data.layout
            state = _state(name)
        if not knobs.components:
            return cls(name, layout=layout, state=state)
        code = _code(key, name, knobs.components)
        return cls(name, options, code, knobs.components if code else "", layout, state)


@lru_cache(maxsize=64)
def _code(key: str, name: str, text: str) -> str:
    return components.gather({key: name}, text)[1]


_states: dict[str, str] = {}
"""The state of data sets' files when `load` last looked: so one run trains on one state of them."""


def _state(name: str) -> str:
    return _states[name] if name in _states else _states.setdefault(name, catalogue.state(name))


def load(data: str | Experiment) -> Dataset:
    """Return a data set; a process holds it once, however many clients it simulates.

    Files that changed since they were read are read again.

    A name is looked for in this order: the catalogue, ``kept:SHA256`` (a data set that Python made
    and `keep` kept on this machine), ``hf:REPO`` (the Hugging Face hub), ``medmnist:NAME`` (a file
    that is on this machine), a path.

    Args:
        data: a name; or an experiment, whose data set may be a component.

    Raises:
        ConfigError: there is no such data set, or its files are not what they should be.
        DataNotHere: its file is not on this machine.
    """
    name = data if isinstance(data, str) else data.data.name
    state = _states[name] = catalogue.state(name)
    if isinstance(data, str):
        return _load(Source(name, state=state))
    return _load(Source.of(data, "data.name"))


@lru_cache(maxsize=2)
def _load(source: Source) -> Dataset:
    if not source.code:
        return catalogue.load(source.name, source.layout)
    from fl.data.own import made  # which a known data set does not need

    found = components.find("data.name", source.name, source.components)
    return made(f"data.name={source.name}", found, json.loads(source.options or "{}"))


def deal(knobs: Experiment) -> Deal:
    """Deal a data set's training images to clients, by the stream (seed, "deal").

    The images of `data.validation` are nobody's.

    Raises:
        ConfigError: the partition can't be made from so many images, or the labels are not of the
            experiment's task.
    """
    return _deal(_asked(knobs))


def validation(knobs: Experiment) -> Int[Tensor, " examples"]:
    """Return the places of the training images that the server keeps to choose the best round."""
    if knobs.data.name == DEVICES:
        return torch.empty(0, dtype=torch.int64)
    kept, _ = _kept_and_dealt(_asked(knobs))
    return torch.from_numpy(kept)


@dataclass(frozen=True)
class _Asked:
    """All that a deal depends on."""

    source: Source
    validation: float
    partition: Partition
    rule: Source
    seed: int
    task: Task


def _asked(knobs: Experiment) -> _Asked:
    return _asked_of(knobs, _state(knobs.data.name))


@lru_cache(maxsize=8)
def _asked_of(knobs: Experiment, state: str) -> _Asked:
    """Return what an experiment's deal depends on, its data's files being in a state."""
    source, rule = (Source.of(knobs, key) for key in ("data.name", "partition.kind"))
    task = objective(knobs).task
    kept, seed = knobs.data.validation, knobs.seeds["deal"]
    return _Asked(source, kept, knobs.partition, rule, seed, task)


def _kept_and_dealt(asked: _Asked) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the server's validation images and of all others, each sorted."""
    order = stream(asked.seed, "validation").permutation(len(_load(asked.source).train))
    kept = round(asked.validation * len(order))
    return np.sort(order[:kept]), np.sort(order[kept:])


@lru_cache(maxsize=8)
def _deal(asked: _Asked) -> Deal:
    train, (_, places) = _load(asked.source).train, _kept_and_dealt(asked)
    labels, rng = _classes(asked.source, asked.task)[places], stream(asked.seed, "deal")
    domains = None if train.domains is None else train.domains.numpy()[places]
    if asked.rule.code:
        rule = components.find("partition.kind", asked.rule.name, asked.rule.components)
        parts = deals.by_function(rule, labels, domains, asked.partition, rng)
    else:
        parts = deals.by_kind(labels, domains, asked.partition, rng)
    return tuple(torch.from_numpy(places[part]) for part in parts)


def classes(knobs: Experiment) -> np.ndarray:
    """Return the class of each training example that a deal goes by.

    Raises:
        ConfigError: the data set's labels are not of the experiment's task.
    """
    return _classes(Source.of(knobs, "data.name"), objective(knobs).task)


def _classes(source: Source, task: Task) -> np.ndarray:
    found = _load(source)
    _check(found, f"data.name={source.name}", task)
    return task.classes_for_deal(found.train.labels)


def named_classes(knobs: Experiment) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return `classes`, and their names; they are numbers where the task has others than the data.

    Raises:
        ConfigError: as `classes`.
    """
    data, found = load(knobs), classes(knobs)
    if np.array_equal(found, data.train.labels.numpy()):
        return found, data.classes
    return found, tuple(map(str, range(int(found.max()) + 1)))


def _check(dataset: Dataset, name: str, task: Task) -> None:
    """Refuse a data set whose labels are not of a task.

    Raises:
        ConfigError: what is wrong, in one line.
    """
    for split in (dataset.train, dataset.test):
        try:
            task.check(split.labels, len(dataset.classes))
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None


@lru_cache(maxsize=8)
def _held_out(asked: _Asked) -> tuple[Deal, Deal]:
    parts = [part.numpy() for part in _deal(asked)]
    sides = partitions.hold_out(parts, asked.partition.held_out, stream(asked.seed, "held-out"))
    train, held = (tuple(torch.from_numpy(part) for part in side) for side in sides)
    return train, held


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
    train, held_out = _held_out(_asked(knobs))
    noise = 0.0
    if knobs.partition.kind == "feature-noise":
        noise = float(partitions.noise_levels(clients, knobs.partition.noise)[number])
    dataset = _load(Source.of(knobs, "data.name"))
    return Share(dataset, train[number], held_out[number], noise)


def counts(knobs: Experiment) -> Sequence[tuple[int, int]]:
    """Return how many images each client of a deal trains on, and how many it holds out."""
    return [(len(train), len(held)) for train, held in zip(*_held_out(_asked(knobs)), strict=True)]


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
        from fl.data.own.changes import state  # which a shard does not need

        task, data = objective(knobs).task, knobs.data
        return _own(path, data.classes, data.layout, task, state(path))
    found, law = shards.read(path)
    asked = {} if knobs.data.name == DEVICES else _law(number, knobs, not found.dealt_from)
    for key, value in asked.items():
        if law.get(key) != value:
            raise ConfigError(
                f"{path} was dealt with {key}={law.get(key)}, but here it is {value}; deal anew, "
                f"or set data.name={DEVICES} to train on whatever the devices hold"
            )
    return found


@lru_cache(maxsize=2)
def _own(path: Path, classes: str, layout: str, task: Task, state: str) -> Share:
    """Read a device's own files, whose state is `state`."""
    from fl.data.formats import read  # readers that a shard does not need

    dataset, nobody = read(path, classes, layout), torch.empty(0, dtype=torch.int64)
    _check(dataset, str(path), task)
    return Share(dataset, torch.arange(len(dataset.train)), nobody, 0.0, "own")


def _law(number: int, knobs: Experiment, by_name: bool = False) -> dict[str, Value]:
    """Return what a share depends on; with the data's name for shards that hold no hash of them."""
    flat = {k: v for k, v in relevant(knobs.to_flat()).items() if k.startswith("partition.")}
    flat.pop("partition.unseen")  # which deals nothing
    data: dict[str, Value] = {"data.validation": knobs.data.validation}
    sources = [Source.of(knobs, "partition.kind")]
    if by_name:
        data |= {f"data.options.{name}": value for name, value in knobs.data.given.items()}
        data["data.name"] = knobs.data.name
        sources.append(Source.of(knobs, "data.name"))
    code = {f"code of {one.name}": components.digest(one.code) for one in sources if one.code}
    return {"partition-id": number, "seed": knobs.seeds["deal"], **data, **flat, **code}
