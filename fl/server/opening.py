"""How a run's folder is opened: what it holds is checked, others kept out, and the run begun."""

import hashlib
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
from fl.config.experiment import ADDED_LATER, bystander, lengths
from fl.config.parsing import ConfigError, Value
from fl.config.renamed import first_spelling
from fl.reproducibility.files import Mark, write_json, write_whole
from fl.reproducibility.locks import HOLDER, holder, locked, sign
from fl.reproducibility.temporary import remove_leftovers
from fl.server.contents import (
    BEST,
    CHECKPOINT,
    CODE,
    COMPONENTS,
    ERRORS,
    EXPERIMENT,
    FIXED,
    LINES,
    MODEL,
    RESULT,
    RUN,
    Checkpoint,
    Found,
    check_checkpoint,
    permanent,
)
from fl.server.journal import Journal, Line
from fl.server.result import ending
from fl.training.checks.estimate import check_journal


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
    _check_that_files_are_files(folder)
    result = journal.result()
    if not (result or os.access(nearest, os.W_OK)):
        raise ConfigError(f"{nearest} can't be written to; choose another folder")
    check_journal(knobs, folder)
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
    longer = _other_length(header, knobs)
    if longer or not result:
        check_checkpoint(folder, journal.run)
    if not longer:
        return Found(header, result=result)
    _check_length(journal, knobs)
    return Found(header)


def _check_that_files_are_files(folder: Path) -> None:
    for path in (folder / name for name in (CHECKPOINT, BEST, MODEL, *LINES, EXPERIMENT, RESULT)):
        if path.is_dir() or (path.is_symlink() and not path.exists()):
            raise ConfigError(f"{path} is damaged: it is no file; choose another folder")


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
        free = key in lengths(knobs) or (bystander(key) and not key.startswith("signals."))
        if not free and there.get(key) != value:
            yield key, there.get(key), value


def _other_length(header: Mapping, knobs: Experiment) -> dict[str, Value]:
    """Return the knobs of a run's length that are not what they were."""
    asked, there = knobs.to_flat(), {**ADDED_LATER, **header["knobs"]}
    return {key: asked[key] for key in lengths(knobs) if there[key] != asked[key]}


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
    left = path.match(f".{EXPERIMENT}-*.part") or path.name == HOLDER
    return left or (path.name == ERRORS and path.is_dir())


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
            sign(folder)
            found = check(journal, knobs, resume)
            yield found if found.result else replace(found, checkpoint=journal.checkpoint())
        finally:
            journal.leave()
            (folder / HOLDER).unlink(missing_ok=True)
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
    checkpoint, there = found.checkpoint, found.header
    run = there.get(RUN, "") if checkpoint else _whose(knobs, conditions)
    written = {RUN: run, "identity": knobs.identity, "knobs": flat, **conditions}
    for key in FIXED if checkpoint else ():
        if there[key] != conditions[key]:
            raise ConfigError(
                f"{folder}: {key} was {there[key]}, is {conditions[key]}; the data "
                "changed, so the run can't go on; choose another folder"
            )
    journal.write(run, _cut(journal, checkpoint))
    if checkpoint:
        former = [there, *there.get("resumed", [])][-1]
        longer = _other_length(there, knobs)
        if (deadline := flat["round.deadline"]) != there["knobs"].get("round.deadline", 0.0):
            longer["round.deadline"] = deadline  # on which a result may depend
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
    write_json(folder / EXPERIMENT, written)


def _whose(knobs: Experiment, conditions: Line) -> str:
    """Return a hash of what makes a run's bytes, whatever its length."""
    flat = first_spelling(knobs.to_flat())
    same = [(key, value) for key, value in flat.items() if (key, value) not in ADDED_LATER.items()]
    same = [(key, value) for key, value in same if not (bystander(key) or key in lengths(knobs))]
    same += [(key, conditions[key]) for key in FIXED]
    return hashlib.sha256(json.dumps(sorted(same)).encode()).hexdigest()[:16]


def _cut(journal: Journal, checkpoint: Checkpoint | None) -> dict[str, Mark]:
    """Drop the lines and client states of rounds that the checkpoint does not cover.

    Returns:
        How far the files of lines go.

    Raises:
        ConfigError: a round that it does cover has no line.
    """
    folder, last = journal.folder, checkpoint.round if checkpoint else -1
    kept = permanent(folder, journal.run, checkpoint) if checkpoint else {}
    for path in (folder / name for name in LINES):
        end = chain[-1].end if (chain := kept.get(path.name)) else 0
        if path.exists() and path.stat().st_size > end:
            write_whole(path, path.read_bytes()[:end])
    if checkpoint:
        journal.sweep(checkpoint)
    for path in (folder / ERRORS).glob("round-*.txt"):
        number = path.name.split("-")[1]
        if number.isdecimal() and int(number) > last:
            path.unlink()
    return {name: Mark(len(chain), chain[-1].link) for name, chain in kept.items() if chain}


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first; one that is not empty, or was never made, stays."""
    for path in folders:
        with suppress(OSError):
            path.rmdir()


class Held(ConfigError):
    """Another process is writing to a folder.

    Args:
        folder: of a run.
    """

    def __init__(self, folder: Path) -> None:
        self.holder = holder(folder)
        super().__init__(
            f"another process is writing to {folder}: it is held by {self.holder}; wait for it, "
            "or choose another folder"
        )


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
                raise Held(folder) from None
        for place, _, _ in os.walk(folder):
            remove_leftovers(Path(place))
        yield
