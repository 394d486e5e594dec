"""Whether the files of runs are as they were written: all of them, and what was checked of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fl.config.parsing import ConfigError
from fl.reproducibility.checking import read_json
from fl.reproducibility.errors import in_words
from fl.server.contents import (
    BEST,
    CHECKPOINT,
    COMPONENTS,
    ERRORS,
    EXPERIMENT,
    LINES,
    MODEL,
    RESULT,
    Checkpoint,
    check_checkpoint,
    read_permanent,
    readable,
)
from fl.server.journal import Journal, model_sha256
from fl.simulation.study import STUDY

State = Literal["good", "unchecked", "damaged"]
FILE_STATES: tuple[State, ...] = get_args(State)
_NAMES = (EXPERIMENT, CHECKPOINT, MODEL, BEST, RESULT, *LINES)
_INSIDE = ("clients", COMPONENTS, ERRORS)


@dataclass(frozen=True)
class Finding:
    """What there is to say of a file."""

    path: Path
    state: State
    """Unchecked: it can be read, and nothing says what it was."""
    said: str
    """What was checked or, of a damaged file, why it is; a whole line."""


def verify(folder: Path) -> Iterator[Finding]:
    """Check every file of the runs in a folder and below it.

    Raises:
        ConfigError: there is no run.
    """
    places = sorted({path.parent for name in _NAMES for path in folder.rglob(name)})
    places = [place for place in places if place.name not in _INSIDE]
    if not places:
        raise ConfigError(f"{folder} holds no run (no {EXPERIMENT} in it or below)")
    for path in sorted(folder.rglob(STUDY)):
        yield _found(path, lambda path=path: _study(path))
    for place in places:
        yield from _run(Journal(place))


def _run(journal: Journal) -> Iterator[Finding]:
    """Yield what there is to say of each file of a run."""
    folder = journal.folder
    header = _found(folder / EXPERIMENT, lambda: _header(journal))
    yield header
    if header.state == "damaged":
        return  # nothing else can be tied to it
    checked = (
        _found(folder / RESULT, lambda: _result(journal)),
        _found(folder / CHECKPOINT, lambda: _checkpoint(journal)),
    )
    yield from (finding for finding in checked if finding.said)
    whole = all(finding.state == "good" for finding in checked)
    for name in LINES:
        yield from _told(folder / name, lambda name=name: _lines(journal, name, whole))
    for name in (BEST, MODEL):
        yield from _told(folder / name, lambda name=name: _network(journal, name))
    if checked[1].state == "good" and (checkpoint := journal.checkpoint()):
        yield from _states(journal, checkpoint)
    for path in sorted((folder / ERRORS).glob("*")):
        yield Finding(path, "unchecked", "a traceback; nothing depends on it")


def _told(path: Path, check: Callable[[], str]) -> Iterator[Finding]:
    """Yield what a check finds, if the run has such a file or should have one."""
    found = _found(path, check)
    if found.said:
        yield found


def _found(path: Path, check: Callable[[], str]) -> Finding:
    """Return what a check says; where it fails, the file is damaged."""
    try:
        run, said = Journal(path.parent).run, ""
        said = check()
    except (ConfigError, OSError) as error:
        return Finding(path, "damaged", str(error) or in_words(error))
    if run or path.name == STUDY or not said:
        return Finding(path, "good", said)
    return Finding(path, "unchecked", f"{said}; no checksum, as an earlier version began this run")


def _study(path: Path) -> str:
    with readable(path):
        runs = read_json(path).get("runs", {})
        return f"{len(runs)} runs asked for"


def _header(journal: Journal) -> str:
    header = journal.header()
    files = len(list((journal.folder / COMPONENTS).rglob("*.py")))
    what = f", and {files} files of {COMPONENTS}/" if files else ""
    return f"checksum, {len(header['knobs'])} knobs{what}"


def _result(journal: Journal) -> str:
    result = journal.result()
    return "" if result is None else f"checksum, {result.get('rounds')} rounds"


def _checkpoint(journal: Journal) -> str:
    check_checkpoint(journal.folder, journal.run)
    checkpoint = journal.checkpoint()
    return "" if checkpoint is None else f"checksum, {len(checkpoint.model)} tensors"


def _lines(journal: Journal, name: str, whole: bool) -> str:
    """Check lines as far as they are permanent; where that is not known, their links."""
    path = journal.folder / name
    end = journal.covers().get(name) if whole else None
    lines = read_permanent(path, journal.run, end)
    if not (lines or path.exists()):
        return ""
    return f"{len(lines)} lines" + (", each linked to the one before" if journal.run else "")


def _network(journal: Journal, name: str) -> str:
    """Check a network; of a finished run the last one has a hash in the result, too."""
    result = journal.result() or {}
    due = bool(result) if name == MODEL else result.get("best_round", _scored(journal)) is not None
    if not (due or (journal.folder / name).exists()):
        return ""
    tensors, about = journal.network(name)
    wanted = result.get("model_sha256") if name == MODEL else None
    if wanted not in (None, found := model_sha256(tensors)):
        path = journal.folder / name
        raise ConfigError(f"{path} is damaged: model_sha256 is {found}, {RESULT} has {wanted}")
    return f"checksum, {len(tensors)} tensors of round {about.get('round', 'unknown')}"


def _scored(journal: Journal) -> int | None:
    """Return a round of an unfinished run that has a score, and is not the last; None without one.

    The best network of such rounds is on the disk. That of the last may not be there yet.
    """
    metric = journal.header().get("metric", {}).get("name", "accuracy")
    scored = [x["round"] for x in journal.rounds()[:-1] if x.get(f"test_{metric}") is not None]
    return scored[0] if scored else None


def _states(journal: Journal, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Yield what there is to say of what clients remember."""
    folder = journal.folder / "clients"
    for partition, number in sorted(checkpoint.clients.items()):
        path = folder / f"{partition}-{number}.safetensors"
        try:
            tensors, _ = journal.client_state(partition, number)
        except ConfigError as error:
            yield Finding(path, "damaged", str(error))
        else:
            state: State = "good" if journal.run else "unchecked"
            yield Finding(path, state, f"checksum, {len(tensors)} tensors of client {partition}")
