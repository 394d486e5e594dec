"""A run on disk, and how it is resumed.

A run is a folder: ``experiment.json`` (what was asked, under which conditions), ``rounds.jsonl``
and ``clients.jsonl`` (a line per round, and per client and round), ``signals.jsonl`` (what was
measured of networks, where it was asked for), ``checkpoint.safetensors`` (the state after the last
finished round), ``components/`` (the source of what is the user's own), ``errors/`` (tracebacks of
clients, if there were any), and at the end
``model.safetensors`` and ``result.json``.

The checkpoint is the commit point: it is replaced in one step, after the lines that it covers have
reached the disk. Whatever lies past it, because a process died in between, is cut off on resume.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fl.config import Experiment
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
from strategies.arrays import Arrays

_FIXED = ("data_sha256", "deal_sha256")  # conditions under which alone a run may go on
_CODE = ("code_sha256", "packages")  # conditions whose change is written down

Line = Mapping[str, object]

EXPERIMENT, ROUNDS = "experiment.json", "rounds.jsonl"
CLIENTS, SIGNALS = "clients.jsonl", "signals.jsonl"
CHECKPOINT, MODEL, RESULT = "checkpoint.safetensors", "model.safetensors", "result.json"
ERRORS, COMPONENTS = "errors", "components"


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round: all that the next round depends on."""

    round: int
    """Rounds that are finished; the sampler's position, since it draws by the round's number."""
    model: Arrays
    clients: Mapping[int, int] = field(default_factory=dict)
    """Partition id -> the round in which that client's saved state was written."""


@dataclass(frozen=True)
class Found:
    """What a folder holds of a run."""

    header: dict = field(default_factory=dict)
    """`experiment.json`; empty before it is written."""
    checkpoint: Checkpoint | None = None
    """Of a run that is begun and not finished."""
    result: dict | None = None
    """Of a finished run."""

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

    def begin(self, knobs: Experiment, conditions: Line, found: Found) -> None:
        """Write down what is asked; on resume, what is not as it was in the first part.

        Args:
            knobs: the experiment.
            conditions: under which it is run.
            found: what the folder holds of it.

        Raises:
            ConfigError: data or deal differ from what the checkpoint was trained on.
        """
        flat = {**knobs.to_flat(), "components": sources.abridged(knobs.components)}
        written = {"identity": knobs.identity, "knobs": flat, **conditions}
        checkpoint, there = found.checkpoint, found.header
        for key in _FIXED if checkpoint else ():
            if there[key] != conditions[key]:
                raise ConfigError(
                    f"{self.folder}: {key} was {there[key]}, is {conditions[key]}; the data "
                    "changed, so the run can't go on; choose another folder"
                )
        self._cut(checkpoint)
        if checkpoint:
            former = [there, *there.get("resumed", [])][-1]
            if all(former[key] == conditions[key] for key in _CODE):
                return
            now = {"after_round": checkpoint.round, **{key: conditions[key] for key in _CODE}}
            written = {**there, "resumed": [*there.get("resumed", []), now]}
        for file, content in sources.parse(knobs.components).items():
            if sources.is_file(file):
                write_whole(self.folder / COMPONENTS / file, content)
        write_whole(self.folder / EXPERIMENT, json.dumps(written, indent=1) + "\n")

    def header(self) -> dict:
        """Return what `experiment.json` says.

        Raises:
            ConfigError: the file is not what we write.
        """
        path = self.folder / EXPERIMENT
        with _readable(path):
            header = json.loads(path.read_text(encoding="utf-8"))
            dict(header["knobs"])
            tuple(str(header[key]) for key in ("identity", *_FIXED, *_CODE))
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
        write_whole(
            self.folder / CHECKPOINT, save(tensors, metadata={"checkpoint": json.dumps(header)})
        )
        self._sweep(checkpoint)

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
            )

    def client_state(self, partition: int, written: int) -> tuple[Arrays, str]:
        """Return a client's state as saved in round `written`: its tensors and its text."""
        path = self._state_path(partition, written)
        with _readable(path):
            tensors, metadata = read_tensors(path)
            return tensors, metadata["records"]

    def finish(self, result: Line, model: Arrays) -> None:
        """Write the final network and, last, the result."""
        write_whole(self.folder / MODEL, save(dict(model)))
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

    def _cut(self, checkpoint: Checkpoint | None) -> None:
        """Drop the lines and client states of rounds that the checkpoint does not cover.

        Raises:
            ConfigError: a round that it does cover has no line.
        """
        covered = checkpoint.round if checkpoint else -1
        kept = {
            name: [line for line in self._lines(name) if line["round"] <= covered]
            for name in (ROUNDS, CLIENTS, SIGNALS)
        }
        if [line["round"] for line in kept[ROUNDS]] != list(range(covered + 1)):
            raise ConfigError(
                f"{self.folder / ROUNDS} lacks rounds that the checkpoint, of round {covered}, "
                "covers; choose another folder"
            )
        for name, lines in kept.items():
            if (self.folder / name).exists():
                write_whole(self.folder / name, "".join(json.dumps(x) + "\n" for x in lines))
        if checkpoint:
            self._sweep(checkpoint)
        for path in (self.folder / ERRORS).glob("round-*.txt"):
            if int(path.name.split("-")[1]) > covered:
                path.unlink()

    def _sweep(self, checkpoint: Checkpoint) -> None:
        """Remove client states that the checkpoint does not list."""
        valid = {self._state_path(*item) for item in checkpoint.clients.items()}
        for path in (self.folder / "clients").glob("*.safetensors"):
            if path not in valid:
                path.unlink()

    def _state_path(self, partition: int, written: int) -> Path:
        return self.folder / "clients" / f"{partition}-{written}.safetensors"


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
