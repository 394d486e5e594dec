"""How a run's folder is opened: what it holds is checked, others kept out, and the run begun."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fl.config import Experiment
from fl.config.components import sources
from fl.config.experiment import ADDED_LATER, LENGTH, bystander
from fl.config.parsing import ConfigError, Value
from fl.reproducibility.files import locked, remove_leftovers, write_whole
from fl.server.journal import (
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
    SIGNALS,
    Checkpoint,
    Found,
    Journal,
    Line,
)
from fl.server.result import ending


def check(journal: Journal, knobs: Experiment, resume: bool) -> Found:
    """Refuse a folder in which this experiment can't be written; writes nothing.

    Returns what there is of it; the checkpoint is not read.

    Raises:
        ConfigError: it holds other files, another experiment, or an unfinished run that
            `resume` was not asked to go on with.
    """
    folder = journal.folder
    nearest = next(p for p in (folder, *folder.parents) if p.exists() or p.is_symlink())
    if not nearest.is_dir():
        raise ConfigError(f"{nearest} is a file; choose another folder")
    result = journal.result()
    if not (result or os.access(nearest, os.W_OK)):
        raise ConfigError(f"{nearest} can't be written to; choose another folder")
    if nearest != folder:
        return Found()
    if not (folder / EXPERIMENT).exists():
        if not all(_is_left_over(path) for path in folder.iterdir()):
            raise ConfigError(f"{folder} holds other files; choose an empty folder")
        return Found()
    header = journal.header()
    for key, there, value in differences(header, knobs):
        if key == "components" and there and value:
            raise ConfigError(
                f"{folder} was begun with other code: {sources.change(there, value)}; put it back, "
                "or choose another folder"
            )
        if key == "run.start-sha256":
            raise ConfigError(
                f"{folder} was begun from other weights: their SHA-256 was {there[:12] or 'none'}, "
                f"is {value[:12] or 'none'}; put them back, or choose another folder"
            )
        raise ConfigError(
            f"{folder} holds another experiment: {key}={there} there, {value} here; "
            "choose another folder"
        )
    if not (result or resume) and (folder / CHECKPOINT).exists():
        raise ConfigError(f"{folder} holds an unfinished run; add --resume to go on")
    if not _other_length(header, knobs):
        return Found(header, result=result)
    _check_length(journal, knobs)
    return Found(header)


def differences(header: Mapping, knobs: Experiment) -> Iterator[tuple[str, Any, Any]]:
    """Yield the knobs in which an experiment is not the one that a run was begun with.

    Those that a run may change on its way are left out: where it is, and how long.

    Args:
        header: of the run.
        knobs: of the experiment.

    Yields:
        The key, the run's value and the experiment's.
    """
    there = {**ADDED_LATER, **header["knobs"]}
    for key, value in knobs.to_flat().items():
        free = key in LENGTH or (bystander(key) and not key.startswith("signals."))
        if not free and there.get(key) != value:
            yield key, there.get(key), value


def _other_length(header: Mapping, knobs: Experiment) -> dict[str, Value]:
    """Return the knobs of a run's length that are not what they were."""
    asked, there = knobs.to_flat(), {**ADDED_LATER, **header["knobs"]}
    return {key: asked[key] for key in LENGTH if there[key] != asked[key]}


def _check_length(journal: Journal, knobs: Experiment) -> None:
    """Refuse a length that ends before the last round that is done.

    Raises:
        ConfigError: it does.
    """
    lines = journal.rounds()
    for done in range(1, len(lines)):
        if why := ending(lines[:done], knobs):
            raise ConfigError(
                f"{journal.folder}: {len(lines) - 1} rounds are done, and with {why} there would "
                f"be {done - 1}; ask for more, or choose another folder"
            )


def _is_left_over(path: Path) -> bool:
    """Return whether a file is of a run that ended before its first file was whole."""
    return path.match(f".{EXPERIMENT}-*.part") or (path.name == ERRORS and path.is_dir())


@contextmanager
def opened(journal: Journal, knobs: Experiment, resume: bool) -> Iterator[Found]:
    """Keep other processes from writing to the folder, and give what there is of a run.

    The folder is made. If nothing is written to it, it is gone again. A process that dies
    gives it free.

    Raises:
        ConfigError: as `check`, or another process is writing to it.
    """
    folder = journal.folder
    made = [p for p in (folder, *folder.parents) if not (p.exists() or p.is_symlink())]
    nearest = made[-1].parent if made else folder
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        check(journal, knobs, resume)  # which says why nothing can be written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        _remove_empty(made)
        raise
    with _alone(folder):
        try:
            found = check(journal, knobs, resume)
            yield found if found.result else replace(found, checkpoint=journal.checkpoint())
        finally:
            _remove_empty(made)  # while nobody else has the lock


def begin(journal: Journal, knobs: Experiment, conditions: Line, found: Found) -> None:
    """Write down what is asked of a run; on resume, what is not as it was in the first part.

    Args:
        journal: its folder is open.
        knobs: the experiment.
        conditions: under which it is run.
        found: what the folder holds of it.

    Raises:
        ConfigError: data or deal differ from what the checkpoint was trained on.
    """
    folder = journal.folder
    flat = {**knobs.to_flat(), "components": sources.abridged(knobs.components)}
    written = {"identity": knobs.identity, "knobs": flat, **conditions}
    checkpoint, there = found.checkpoint, found.header
    for key in FIXED if checkpoint else ():
        if there[key] != conditions[key]:
            raise ConfigError(
                f"{folder}: {key} was {there[key]}, is {conditions[key]}; the data "
                "changed, so the run can't go on; choose another folder"
            )
    _cut(journal, checkpoint)
    if checkpoint:
        former = [there, *there.get("resumed", [])][-1]
        longer = _other_length(there, knobs)
        if not longer and all(former[key] == conditions[key] for key in CODE):
            return
        now = {"after_round": checkpoint.round, **{key: conditions[key] for key in CODE}, **longer}
        asked = {"identity": knobs.identity, "knobs": flat}
        written = {**there, **asked, "resumed": [*there.get("resumed", []), now]}
        for name in (RESULT, MODEL):  # of the run as it was, which was shorter
            (folder / name).unlink(missing_ok=True)
    for file, content in sources.parse(knobs.components).items():
        if sources.is_file(file):
            write_whole(folder / COMPONENTS / file, content)
    write_whole(folder / EXPERIMENT, json.dumps(written, indent=1) + "\n")


def _cut(journal: Journal, checkpoint: Checkpoint | None) -> None:
    """Drop the lines and client states of rounds that the checkpoint does not cover.

    Raises:
        ConfigError: a round that it does cover has no line.
    """
    folder, covered = journal.folder, checkpoint.round if checkpoint else -1
    whole = {ROUNDS: journal.rounds(), CLIENTS: journal.clients(), SIGNALS: journal.signals()}
    kept = {
        name: [line for line in lines if line["round"] <= covered] for name, lines in whole.items()
    }
    if [line["round"] for line in kept[ROUNDS]] != list(range(covered + 1)):
        raise ConfigError(
            f"{folder / ROUNDS} lacks rounds that the checkpoint, of round {covered}, "
            "covers; choose another folder"
        )
    for name, lines in kept.items():
        if (folder / name).exists():
            write_whole(folder / name, "".join(json.dumps(x) + "\n" for x in lines))
    if checkpoint:
        journal.sweep(checkpoint)
    for path in (folder / ERRORS).glob("round-*.txt"):
        if int(path.name.split("-")[1]) > covered:
            path.unlink()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first; one that is not empty, or was never made, stays."""
    for path in folders:
        with suppress(OSError):
            path.rmdir()


_TRIES, _PAUSE = 5, 0.02
"""How often a lock is tried, and the seconds between: `fl.reproducibility.files.held`, by which
`fednf watch` looks, holds one for microseconds."""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as lock:
        for tries_left in reversed(range(_TRIES)):
            try:
                lock.enter_context(locked(folder))
                break
            except BlockingIOError:
                if tries_left:
                    time.sleep(_PAUSE)
                    continue
                raise ConfigError(
                    f"another process is writing to {folder}; wait for it, or choose another folder"
                ) from None
        for place in (folder, folder / "clients"):
            remove_leftovers(place)
        yield
