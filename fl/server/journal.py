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

Whatever is read is checked: files have seals, and lines have links (`fl.reproducibility.files`).
`run` in ``experiment.json``, a hash of what makes the run's bytes, is in every other sealed file
and is the link before the first line of each file: a file of another run is found. The checkpoint
and the result say how many lines they cover, and the last link of those.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fl.config.components import sources
from fl.config.parsing import ConfigError
from fl.config.renamed import modernize_header
from fl.reproducibility.checking import Damaged, read_json, read_tensors
from fl.reproducibility.files import (
    SEAL,
    Mark,
    append_lines,
    fingerprint,
    write_json,
    write_tensors,
    write_whole,
)
from fl.server.contents import (
    ABOUT,
    BEST,
    CHECKPOINT,
    CLIENTS,
    CODE,
    COMPONENTS,
    ERRORS,
    EXPERIMENT,
    FIXED,
    MODEL,
    RESULT,
    ROUNDS,
    RUN,
    SIGNALS,
    Checkpoint,
    check_run,
    covered,
    read_permanent,
    readable,
)
from fl.tasks import Metric
from strategies.arrays import Arrays

Line = Mapping[str, object]


class Journal:
    """One run's folder.

    Args:
        folder: made, with its parents, by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing: tuple[str, dict[str, Mark]] | None = None
        """Whose run this process writes, and how far the files of lines go."""

    def header(self) -> dict:
        """Return what `experiment.json` says.

        Raises:
            ConfigError: the file is not what we write.
        """
        header = self._header()
        with readable(self.folder / EXPERIMENT):
            header.pop(SEAL, None)
            dict(header["knobs"])
            tuple(str(header[key]) for key in ("identity", *FIXED, *CODE))
            text = str(header["knobs"].get("components", ""))
            header["knobs"]["components"] = sources.restored(text, self.folder / COMPONENTS)
            return modernize_header(header)

    @property
    def run(self) -> str:
        """Whose run this is; empty where an earlier version began it, or nothing has yet."""
        if self._writing:
            return self._writing[0]
        return str(self._header().get(RUN, "")) if (self.folder / EXPERIMENT).exists() else ""

    def _header(self) -> dict:
        path = self.folder / EXPERIMENT
        with readable(path):
            header = read_json(path)
            if RUN in header and SEAL not in header:
                raise Damaged("its checksum is gone")
            return header

    def rounds(self) -> list[dict]:
        """Return the lines of `rounds.jsonl`, oldest first: those that are permanent."""
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
        run, ends = self._writing or self.write(self.run, {})
        for name, new in ((SIGNALS, signals), (CLIENTS, clients), (ROUNDS, [line])):
            ends[name] = append_lines(self.folder / name, new, ends.get(name, Mark(0, run)))
        for partition, (tensors, text) in states.items():
            path = self.state_path(partition, checkpoint.round)
            write_tensors(path, tensors, {"records": text, RUN: run, "of": path.stem})
        header = {
            "round": checkpoint.round,
            "clients": {str(k): v for k, v in checkpoint.clients.items()},
            RUN: run,
            "covers": ends,
        }
        tensors = {f"model/{name}": array for name, array in checkpoint.model.items()}
        tensors |= {f"strategy/{name}": array for name, array in checkpoint.strategy.items()}
        write_tensors(self.folder / CHECKPOINT, tensors, {"checkpoint": json.dumps(header)})
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
        with readable(path):
            run = self.run
            tensors, metadata = read_tensors(path, sealed=bool(run))
            header = check_run(json.loads(metadata["checkpoint"]), run)
            return Checkpoint(
                round=int(header["round"]),
                model=_under("model/", tensors),
                clients={int(k): int(v) for k, v in header["clients"].items()},
                strategy=_under("strategy/", tensors),
                covers=covered(header),
            )

    def client_state(self, partition: int, written: int) -> tuple[Arrays, str]:
        """Return a client's state as saved in round `written`: its tensors and its text."""
        path = self.state_path(partition, written)
        with readable(path):
            run = self.run
            tensors, metadata = read_tensors(path, sealed=bool(run))
            check_run(metadata, run)
            if run and metadata["of"] != path.stem:
                raise Damaged(f"it is {metadata['of']}, of another client or round")
            return tensors, metadata["records"]

    def keep_network(self, name: str, model: Arrays, number: int, about: Line) -> None:
        """Write the network of a round, with what using it takes.

        Args:
            name: of the file, `MODEL` or `BEST`.
            model: the network.
            number: of the round.
            about: as from `fl.training.standardized.describe`.
        """
        told = json.dumps({"round": number, RUN: self.run, **about})
        write_tensors(self.folder / name, model, {ABOUT: told})

    def network(self, name: str) -> tuple[Arrays, dict[str, Any]]:
        """Return a network that `keep_network` wrote, and what using it takes.

        The latter is empty where an earlier version wrote the network.

        Raises:
            ConfigError: there is none, or the file is damaged.
        """
        path = self.folder / name
        if not path.exists():
            raise ConfigError(
                f"{self.folder} has no {name}: the last network is written when a run is finished, "
                "the best one where the server has images to score it on"
            )
        wanted = (self.result() or {}).get({MODEL: "rounds", BEST: "best_round"}[name])
        with readable(path):
            run = self.run
            tensors, metadata = read_tensors(path, sealed=bool(run))
            about = check_run(json.loads(metadata.get(ABOUT, "{}")), run)
            if run and wanted not in (None, about["round"]):
                raise Damaged(f"it is of round {about['round']}, and should be of round {wanted}")
            return tensors, {key: value for key, value in about.items() if key != RUN}

    def finish(self, result: Line) -> None:
        """Write the result, which says that the run is finished."""
        write_json(self.folder / RESULT, {RUN: self.run, "covers": self.covers(), **result})

    def result(self) -> dict | None:
        """Return the result of a finished run, None for any other."""
        found = self._finished()
        return found and {key: found[key] for key in found if key not in (SEAL, RUN, "covers")}

    def _finished(self) -> dict | None:
        """Return all that `result.json` says; None where there is none."""
        path, run = self.folder / RESULT, self.run
        with readable(path), suppress(FileNotFoundError):  # a run that goes on removes it
            return check_run(read_json(path, sealed=bool(run)), run)
        return None

    def covers(self) -> Mapping[str, Mark]:
        """Return how far the permanent lines of each file go; nothing where that is not known."""
        if self._writing:
            return self._writing[1]
        if (result := self._finished()) is not None:
            with readable(self.folder / RESULT):
                return covered(result)
        checkpoint = self.checkpoint()
        return checkpoint.covers if checkpoint else {}

    def write(self, run: str, ends: dict[str, Mark]) -> tuple[str, dict[str, Mark]]:
        """Begin to write: whose run, and how far the files of lines go."""
        self._writing = run, ends
        return self._writing

    def leave(self) -> None:
        """End to write: what is on the disk may be another process's from now on."""
        self._writing = None

    def _lines(self, name: str) -> list[dict]:
        return read_permanent(self.folder / name, self.run, self.covers().get(name))

    def sweep(self, checkpoint: Checkpoint) -> None:
        """Remove client states that the checkpoint does not list."""
        valid = {self.state_path(*item) for item in checkpoint.clients.items()}
        for path in (self.folder / "clients").glob("*.safetensors"):
            if path not in valid:
                path.unlink()

    def state_path(self, partition: int, written: int) -> Path:
        """Return where a client's state of round `written` is."""
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


def _under(prefix: str, tensors: Arrays) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): tensors[n] for n in tensors if n.startswith(prefix)}
