"""How a run's folder is opened: what it holds is checked, and other processes are kept out."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fl.config import Experiment
from fl.config.components.sources import change
from fl.config.experiment import ADDED_LATER
from fl.config.parsing import ConfigError
from fl.reproducibility.files import locked, remove_leftovers
from fl.server.journal import CHECKPOINT, ERRORS, EXPERIMENT, Found, Journal


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
    for key, value in knobs.to_flat().items():
        there = header["knobs"].get(key, ADDED_LATER.get(key))
        if key == "components" and there and value and there != value:
            raise ConfigError(
                f"{folder} was begun with other code: {change(str(there), str(value))}; put it "
                "back, or choose another folder"
            )
        if not key.startswith(("run.", "devices.")) and there != value:
            raise ConfigError(
                f"{folder} holds another experiment: {key}={there} there, {value} here; "
                "choose another folder"
            )
    if not (result or resume) and (folder / CHECKPOINT).exists():
        raise ConfigError(f"{folder} holds an unfinished run; add --resume to go on")
    return Found(header, result=result)


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


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first; one that is not empty, or was never made, stays."""
    for path in folders:
        with suppress(OSError):
            path.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder))
        except BlockingIOError:
            raise ConfigError(
                f"another process is writing to {folder}; wait for it, or choose another folder"
            ) from None
        for place in (folder, folder / "clients"):
            remove_leftovers(place)
        yield
