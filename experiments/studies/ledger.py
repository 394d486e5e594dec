"""A study as tables: `runs.csv`, `rounds.csv` and `clients.csv`, of which it can be read again.

A cell is JSON, such as 0.5, true, null or a list; text that is no JSON stands as it is. A cell is
empty where a row has no such value.
"""

import csv
import io
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.config.parts.contrasts import AFTER
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import write_whole
from fl.server.contents import EXPERIMENT
from fl.server.journal import Journal
from fl.simulation.study import Study

RUNS, ROUNDS, CLIENTS = "runs.csv", "rounds.csv", "clients.csv"
TABLES = (RUNS, ROUNDS, CLIENTS)
FOLDER = "ledger"
"""Where a study's folder has the tables of runs that were done elsewhere."""
NAMES = ("series", "condition", "folder", "run", "finished", "rounds_done")
"""Columns that say whose a row is, and what follows from others."""
LATE = "late_"
"""Begins the column that follows from a run's rounds: its mean over the last of them."""
_WHOSE = ("series", "condition", "seed", "folder")
"""Columns of rounds and clients that their run has, too."""
ABOUT = "about."
"""Begins the columns with what `experiment.json` says besides knobs."""
STUDY = f"{ABOUT}study"
TAKEN, ASKED = "engine", "engine.asked"
"""The engine that was taken, and the knob."""
REFUSALS = "refusals"
"""Each refused reply of a round, where `refused` is their number."""

Row = Mapping[str, object]


@dataclass(frozen=True)
class Kept:
    """A run as tables or its folder have it."""

    name: str
    header: dict
    """As `experiment.json` has it."""
    result: dict | None
    rounds: list[dict] = field(default_factory=list)
    clients: list[dict] = field(default_factory=list)
    journal: Journal | None = None
    """Its folder, if it has one here."""
    folder: str = ""
    """Which of several folders it is from, in a report of them."""
    studies: list[dict] = field(default_factory=list)
    """What its studies say of themselves, where a row has it."""

    def answers(self, experiment: Experiment) -> bool:
        """Say whether this is that experiment, done to its end."""
        wanted = experiment.rounds, experiment.identity
        return self.result is not None and wanted == asked(self.header)


def cell(value: object) -> object:
    """Return what a cell holds of a value."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False) if _is_json(value) else value


def of_knobs(knobs: Row, taken: object) -> Row:
    """Return the cells of a run's knobs; the column `engine` has the engine that was taken."""
    cells = {key: value if value == "" else cell(value) for key, value in knobs.items()}
    return {**cells, TAKEN: cell(taken), ASKED: cell(knobs.get(TAKEN))}


def of_header(header: Row, studies: Sequence[Row]) -> Row:
    """Return the cells of what a run's `experiment.json` says besides knobs, and of its studies.

    A study is an object. Several of them, in a table of several folders, are a list.
    """
    about = {f"{ABOUT}{key}": cell(value) for key, value in header.items() if key != "knobs"}
    return {**about, STUDY: cell(studies[0] if len(studies) == 1 else list(studies))}


def of_round(line: Row) -> Row:
    """Return the cells of a line of `rounds.jsonl`; `refused` is the number of replies."""
    refused = line["refused"]
    cells = {key: cell(value) for key, value in line.items() if key != "refused"}
    cells |= {"refused": len(refused)}  # pyrefly: ignore
    return {**cells, REFUSALS: cell(refused)} if refused else cells


def read(folder: Path) -> list[Kept]:
    """Read the runs of a folder's tables, and what their studies say of themselves.

    Without `clients.csv` the runs have no figures of clients.

    Raises:
        ConfigError: a table is not there, or not one that a report wrote.
    """
    kept: dict[str, Kept] = {}
    texts = {key for key, value in Experiment().to_flat().items() if value == ""}
    for number, row in rows(folder / RUNS, texts):
        with _told(folder / RUNS, number):
            run = _run(row)
            kept[run.name] = run
    for path in (folder / ROUNDS, folder / CLIENTS):
        if path.name == CLIENTS and not path.exists():
            continue
        for number, row in rows(path):
            with _told(path, number):
                line = {key: value for key, value in row.items() if key not in _WHOSE}
                run = kept[str(line.pop("run"))]
                if path.name == ROUNDS:
                    line["refused"] = line.pop(REFUSALS, [])
                (run.rounds if path.name == ROUNDS else run.clients).append(line)
    return list(kept.values())


def below(folder: Path) -> list[Kept]:
    """Return the runs below a folder, which may itself be one, and those of its own ledger.

    A run that is finished below the folder is not taken from the ledger, too.

    Raises:
        ConfigError: a file can't be read.
    """
    journals = [Journal(path.parent) for path in sorted(folder.rglob(EXPERIMENT))]
    found = [_of(journal, folder) for journal in journals]
    kept = read(folder / FOLDER) if (folder / FOLDER / RUNS).exists() else []
    here = {asked(one.header) for one in found if one.result}
    return [*found, *(one for one in kept if asked(one.header) not in here)]


def _of(journal: Journal, folder: Path) -> Kept:
    name = journal.folder.relative_to(folder).as_posix()
    name = folder.resolve().name if name == "." else name
    lines = journal.rounds(), journal.clients()
    return Kept(name, journal.header(), journal.result(), *lines, journal)


def asked(header: Row) -> tuple[object, object]:
    """Return of how many rounds a run was to be, and which experiment it is."""
    return header["knobs"].get("rounds"), header["identity"]  # pyrefly: ignore


def take(source: Path, out: Path) -> None:
    """Copy the tables of a folder into a study's, where the study and its report look for them.

    Raises:
        ConfigError: they can't be read; nothing was written.
    """
    read(source)
    for name in TABLES:
        if (source / name).exists():
            write_whole(out / FOLDER / name, (source / name).read_text(encoding="utf-8"))


def done(study: Study, tables: Path) -> dict[str, Kept]:
    """Return which of a study's runs a folder's tables have, by the names of their folders.

    Raises:
        ConfigError: they can't be read.
    """
    kept = read(tables)
    pairs = zip(study.folders(), study.experiments, strict=True)
    found = ((name, next((k for k in kept if k.answers(one)), None)) for name, one in pairs)
    return {name: run for name, run in found if run}


def declared(study: Study, runs: Iterable[Kept]) -> Mapping[str, object]:
    """Return what runs say that their study's contrasts were; empty where none does.

    Of several declarations it is the one that came after the most runs.
    """
    told = (about for run in runs for about in run.studies if about.get("name") == study.name)
    found = [about["contrasts"] for about in told if about.get("contrasts")]
    return max(found, key=lambda contrasts: contrasts.get(AFTER, 0), default={})


def _run(row: dict) -> Kept:
    """Take a row of `runs.csv` apart: its name, what was asked and came out, and its studies."""
    study, name = row.pop(STUDY), str(row["run"])
    studies = study if isinstance(study, list) else [study]
    finished, rounds_done = row["finished"], row["rounds_done"]
    known = Experiment().to_flat()
    knobs, header, result = {}, {}, {}
    row[TAKEN] = row.pop(ASKED)
    for key, value in row.items():
        if key.startswith(ABOUT):
            header[key.removeprefix(ABOUT)] = value
        elif key in known or "." in key:
            knobs[key] = value
        elif key not in NAMES and not key.startswith(LATE):
            result[key] = value
    header["knobs"] = knobs
    done = {**result, "rounds": rounds_done} if finished else None
    folder = str(row.get("folder", ""))
    return Kept(name, header, done, folder=folder, studies=[dict(one) for one in studies])


def rows(path: Path, texts: Collection[str] = ()) -> Iterator[tuple[int, dict]]:
    """Yield the rows of a table with their numbers, from 1.

    Args:
        path: of the table.
        texts: columns in which an empty cell is an empty text; else it is left out.

    Raises:
        ConfigError: there is no such table.
    """
    if not path.is_file():
        raise ConfigError(f"{path.parent} has no {path.name}: give the folder of a report's tables")
    csv.field_size_limit(sys.maxsize)  # source code of a user's own may be a cell
    text = path.read_text(encoding="utf-8")
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=1):
        yield number, {k: _value(text) for k, text in row.items() if text != "" or k in texts}


@contextmanager
def _told(path: Path, number: int) -> Iterator[None]:
    """Tell what is wrong with a row in one line."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: row {number} is not one that a report wrote ({in_words(error)})"
        ) from None


def _value(text: str | None) -> object:
    try:
        return json.loads(text or "")
    except ValueError:
        return text


def _is_json(text: str) -> bool:
    return _value(text) is not text
