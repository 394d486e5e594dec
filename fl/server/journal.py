"""A run on disk, and how it is resumed.

A run is a folder: ``experiment.json`` (what was asked, under which conditions), ``rounds.jsonl``
and ``clients.jsonl`` (a line per round, and per client and round), ``signals.jsonl`` (what was
measured of networks, where it was asked for), ``checkpoint.safetensors`` (the state after the last
finished round), ``components/`` (the source of what is the user's own), ``errors/`` (tracebacks of
clients, if there were any), and at the end
``model.safetensors`` and ``result.json``; ``best.safetensors`` is the network of the best round so
far.

The checkpoint is the commit point: it is replaced in one step, after the lines that it covers have
reached the disk. Whatever lies past it, because a process died in between, is cut off on resume.
The best network is written after it, and if a process died in between, it is written on resume.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from fl.config.components import sources
from fl.config.parsing import ConfigError
from fl.config.renamed import modernize_header
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import (
    append_lines,
    fingerprint,
    read_lines,
    read_tensors,
    write_whole,
)
from fl.tasks import Metric
from strategies.arrays import Arrays

Line = Mapping[str, object]

EXPERIMENT, ROUNDS = "experiment.json", "rounds.jsonl"
CLIENTS, SIGNALS = "clients.jsonl", "signals.jsonl"
CHECKPOINT, MODEL, RESULT = "checkpoint.safetensors", "model.safetensors", "result.json"
BEST = "best.safetensors"
ERRORS, COMPONENTS = "errors", "components"
FIXED = ("data_sha256", "deal_sha256")
"""Conditions under which alone a run may go on."""
CODE = ("code_sha256", "packages")
"""Conditions whose change is written down."""
ABOUT = "fednf"
"""The key in a network's metadata under which there is what using it takes, as JSON."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round: all that the next round depends on."""

    round: int
    """Rounds that are finished; the sampler's position, since it draws by the round's number."""
    model: Arrays
    clients: Mapping[int, int] = field(default_factory=dict)
    """Partition id -> the round in which that client's saved state was written."""
    strategy: Arrays = field(default_factory=dict)
    """What the strategy remembers on the server."""


@dataclass(frozen=True)
class Found:
    """What a folder holds of a run."""

    header: dict = field(default_factory=dict)
    """`experiment.json`; empty before it is written."""
    checkpoint: Checkpoint | None = None
    """Of a run that is begun and not finished."""
    result: dict | None = None
    """Of a finished run that is not to go on."""

    @property
    def engine(self) -> dict:
        """What was chosen of engine and workers at the run's beginning; nothing before."""
        told = self.header.get("engine", {})
        return {key: value for key, value in told.items() if key != "why"}


class Journal:
    """One run's folder.

    Args:
        folder: made, with its parents, by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def header(self) -> dict:
        """Return what `experiment.json` says.

        Raises:
            ConfigError: the file is not what we write.
        """
        path = self.folder / EXPERIMENT
        with _readable(path):
            header = json.loads(path.read_text(encoding="utf-8"))
            dict(header["knobs"])
            tuple(str(header[key]) for key in ("identity", *FIXED, *CODE))
            text = str(header["knobs"].get("components", ""))
            header["knobs"]["components"] = sources.restored(text, self.folder / COMPONENTS)
            return modernize_header(header)

    def rounds(self) -> list[dict]:
        """Return the lines of `rounds.jsonl`, oldest first."""
        return self._lines(ROUNDS)

    def clients(self) -> list[dict]:
        """Return the lines of `clients.jsonl`, oldest first."""
        return self._lines(CLIENTS)

    def signals(self) -> list[dict]:
        """Return the lines of `signals.jsonl`, oldest first."""
        return self._lines(SIGNALS)

    def commit(
        self,
        line: Line,
        clients: Iterable[Line],
        checkpoint: Checkpoint,
        states: Mapping[int, tuple[Arrays, str]],
        signals: Iterable[Line] = (),
    ) -> None:
        """Make a round permanent: its lines, the states of its clients, and then the checkpoint.

        Args:
            line: the round's figures.
            clients: figures of every client that was asked.
            checkpoint: the state after the round.
            states: partition id -> tensors and text of each client state that the round changed.
            signals: what was measured of networks.
        """
        append_lines(self.folder / SIGNALS, signals)
        append_lines(self.folder / CLIENTS, clients)
        append_lines(self.folder / ROUNDS, [line])
        for partition, (tensors, text) in states.items():
            path = self._state_path(partition, checkpoint.round)
            write_whole(path, save(dict(tensors), metadata={"records": text}))
        header = {
            "round": checkpoint.round,
            "clients": {str(k): v for k, v in checkpoint.clients.items()},
        }
        tensors = {f"model/{name}": array for name, array in checkpoint.model.items()}
        tensors |= {f"strategy/{name}": array for name, array in checkpoint.strategy.items()}
        write_whole(
            self.folder / CHECKPOINT, save(tensors, metadata={"checkpoint": json.dumps(header)})
        )
        self.sweep(checkpoint)

    def keep_error(self, number: int, whose: str, text: str) -> None:
        """Keep the traceback of an exception in a round: of the `server`, or of `client-N`."""
        path = self.folder / ERRORS / f"round-{number}-{whose}.txt"
        write_whole(path, text.encode("utf-8", "backslashreplace"))

    def checkpoint(self) -> Checkpoint | None:
        """Return the state after the last finished round; None before the first commit."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        with _readable(path):
            tensors, metadata = read_tensors(path)
            header = json.loads(metadata["checkpoint"])
            return Checkpoint(
                round=int(header["round"]),
                model=_under("model/", tensors),
                clients={int(k): int(v) for k, v in header["clients"].items()},
                strategy=_under("strategy/", tensors),
            )

    def client_state(self, partition: int, written: int) -> tuple[Arrays, str]:
        """Return a client's state as saved in round `written`: its tensors and its text."""
        path = self._state_path(partition, written)
        with _readable(path):
            tensors, metadata = read_tensors(path)
            return tensors, metadata["records"]

    def keep_network(self, name: str, model: Arrays, number: int, about: Line) -> None:
        """Write the network of a round, with what using it takes.

        Args:
            name: of the file, `MODEL` or `BEST`.
            model: the network.
            number: of the round.
            about: as from `fl.training.standardized.describe`.
        """
        told = json.dumps({"round": number, **about})
        write_whole(self.folder / name, save(dict(model), metadata={ABOUT: told}))

    def network(self, name: str) -> tuple[Arrays, dict[str, Any]]:
        """Return a network that `keep_network` wrote, and what using it takes.

        The latter is empty where an earlier version wrote the network.

        Raises:
            ConfigError: there is none.
        """
        path = self.folder / name
        if not path.is_file():
            raise ConfigError(
                f"{self.folder} has no {name}: the last network is written when a run is finished, "
                "the best one where the server has images to score it on"
            )
        with _readable(path):
            tensors, metadata = read_tensors(path)
            return tensors, dict(json.loads(metadata.get(ABOUT, "{}")))

    def finish(self, result: Line) -> None:
        """Write the result, which says that the run is finished."""
        write_whole(self.folder / RESULT, json.dumps(result, indent=1) + "\n")

    def result(self) -> dict | None:
        """Return the result of a finished run, None for any other."""
        path = self.folder / RESULT
        if not path.exists():
            return None
        with _readable(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def _lines(self, name: str) -> list[dict]:
        with _readable(self.folder / name):
            return read_lines(self.folder / name)

    def sweep(self, checkpoint: Checkpoint) -> None:
        """Remove client states that the checkpoint does not list."""
        valid = {self._state_path(*item) for item in checkpoint.clients.items()}
        for path in (self.folder / "clients").glob("*.safetensors"):
            if path not in valid:
                path.unlink()

    def _state_path(self, partition: int, written: int) -> Path:
        return self.folder / "clients" / f"{partition}-{written}.safetensors"


def best_of(lines: Sequence[dict], metric: Metric) -> tuple[str | None, dict]:
    """Return by what the best round is chosen, and its line; nothing where the server can't tell.

    The first of several that are equally good is the best. Held-out images of devices can't choose
    it: the devices of each round hold other images.
    """
    best = max if metric.larger else min
    for chosen_by in (f"validation_{metric.name}", f"test_{metric.name}"):
        if known := [line for line in lines if line[chosen_by] is not None]:
            return chosen_by, best(known, key=lambda line: line[chosen_by])
    return None, {}


def model_sha256(model: Arrays) -> str:
    """Return the SHA-256 over every tensor's name, type, shape and bytes: a network's identity."""
    return fingerprint(model)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one line that names it."""
    try:
        yield
    except Exception as error:
        what = in_words(error)
        raise ConfigError(f"{path} is damaged: {what}; choose another folder") from None


def _under(prefix: str, tensors: Arrays) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
