"""How far the runs below a folder are, read from their files alone, while others write them.

Nothing here fails for what it finds: files are half-written, folders vanish, and processes are
killed. A run whose folder nobody has locked is not running.
"""

import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open

from fl.config.parsing import ConfigError
from fl.reproducibility.files import Mark
from fl.reproducibility.locks import held
from fl.server.contents import CHECKPOINT, ERRORS, EXPERIMENT, ROUNDS, covered, read_permanent
from fl.server.journal import Journal
from fl.simulation.study import NEEDLESS, STUDY

STATES = ("running", "failed", "stopped", "damaged", "waiting", "done")
_RECENT = 20
"""Rounds whose mean time is taken for what a round takes."""


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    name: str
    """Its folder, relative to the one that was looked at."""
    state: str
    """One of `STATES`. Stopped: begun, and no process is at work on it. Failed: so, and the last
    thing it wrote is an error."""
    round: int | None
    """The last finished one; None before round 0."""
    rounds: int
    score: str = ""
    """What `latest` and `best` are: the title of the task's primary metric."""
    latest: float | None = None
    best: float | None = None
    """So far: the largest or, of an error, the smallest."""
    images_per_second: float | None = None
    """In the rounds of late."""
    seconds_left: float | None = None
    note: str = ""
    """Why it failed, and the command that goes on with it."""


@dataclass(frozen=True)
class Status:
    """How far all runs below a folder are."""

    runs: Sequence[RunStatus]
    seconds_left: float | None
    """Of all that are running or wait for one that is; None where nothing is known yet."""
    again: Sequence[str] = ()
    """Commands of studies that are unfinished and that nobody is at work on."""

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state; states without runs are left out."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def rounds(self) -> tuple[int, int]:
        """Rounds that are done, and all that were asked for."""
        return sum(run.round or 0 for run in self.runs), sum(run.rounds for run in self.runs)


def look(folder: Path) -> Status:
    """Return how far the runs in a folder and below it are; a folder that is gone has none."""
    planned: dict[Path, int] = {}
    studies: dict[Path, Mapping] = {}
    places: list[Path] = []
    needless = set[Path]()
    for place, files in _walk(folder):
        if STUDY in files:
            studies[place] = _json(place / STUDY) or {}
            runs = studies[place].get("runs")
            names = runs.items() if isinstance(runs, Mapping) else ()
            planned |= {place / str(name): _whole(rounds) for name, rounds in names}
            left_out = studies[place].get(NEEDLESS)
            names = left_out if isinstance(left_out, list) else ()
            needless |= {place / str(name) for name in names}
        if EXPERIMENT in files:
            places.append(place)
    of_studies = set(planned)
    found = {place: _status(place, folder, place in of_studies) for place in places}
    for place, rounds in planned.items():
        found.setdefault(place, RunStatus(_name(place, folder), "waiting", None, rounds))
    for place in needless & found.keys():
        if found[place].state in ("waiting", "stopped"):
            del found[place]
    again = []
    for place, about in studies.items():
        states = {run.state for path, run in found.items() if place in path.parents}
        if "running" not in states and states - {"done"} and about.get("command"):
            again.append(str(about["command"]))
    return Status(tuple(found.values()), _left(tuple(found.values())), tuple(again))


def _walk(folder: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """Yield folders and the files in them; what is inside of runs is left out."""
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(inner) if EXPERIMENT not in files else []
        yield Path(place), files


def _status(place: Path, folder: Path, of_study: bool) -> RunStatus:
    header = _json(place / EXPERIMENT) or {}
    knobs = header.get("knobs")
    rounds = _whole(knobs.get("rounds")) if isinstance(knobs, Mapping) else 0
    try:
        # In this order: a run that goes on meanwhile has more lines, and no line is missing.
        done = "rounds" in (Journal(place).result() or {})
        running = not done and held(place)
        last, end = _position(place, done, running)
        lines, since = _lines(place, end)
    except (OSError, ValueError) as error:
        return RunStatus(_name(place, folder), "damaged", None, rounds, note=str(error))
    lines = [line for line in lines if last is not None and line["round"] <= last]
    state, note = "done" if done else "running" if running else "stopped", ""
    if state == "stopped":
        note = _failure(place / ERRORS, lines[-1]["round"] if lines else -1)
        state = "failed" if note else state
        if not of_study:
            note = f"{note}; " * bool(note) + f"go on with: {_command(header, place)}"
    seconds = _seconds_left(lines, rounds, since) if state == "running" else None
    known = RunStatus(_name(place, folder), state, None, rounds, note=note, seconds_left=seconds)
    return (
        replace(known, round=lines[-1]["round"], **_figures(lines, header.get("metric")))
        if lines
        else known
    )


def _figures(lines: Sequence[Mapping], metric: object) -> dict:
    """Return what a run has come to so far."""
    late = [line for line in lines[-_RECENT:] if line["round"]]
    seconds = sum(line.get("train_seconds") or 0 for line in late)
    images = sum(line.get("images") or 0 for line in late)
    found: dict = {"images_per_second": images / seconds if seconds else None}
    told = metric if isinstance(metric, Mapping) else {}  # runs from before there were tasks
    name, better = told.get("name", "accuracy"), max if told.get("larger", True) else min
    scores = [line[f"test_{name}"] for line in lines if line.get(f"test_{name}") is not None]
    if scores:
        found |= {"latest": scores[-1], "best": better(scores)}
    return {**found, "score": str(told.get("title", name))}


def _seconds_left(lines: Sequence[Mapping], rounds: int, since: float) -> float | None:
    """Return the rounds that are left times what one takes, less what this one has taken."""
    took = [line["seconds"] for line in lines if line["round"] and line.get("seconds")]
    if not took:
        return None
    usual = statistics.fmean(took[-_RECENT:] if len(took) == 1 else took[1:][-_RECENT:])
    return max((rounds - lines[-1]["round"]) * usual - since, 0.0)


def _left(runs: Sequence[RunStatus]) -> float | None:
    """Return the time left of all runs, if those that wait take as long as those that run."""
    running = [run for run in runs if run.state == "running"]
    known = [run for run in running if run.seconds_left is not None]
    if not known:
        return None
    left = sum(run.seconds_left or 0 for run in known)
    rounds = sum(run.rounds - (run.round or 0) for run in known)
    unknown = [run for run in runs if run.state == "waiting" or run in running]
    others = sum(run.rounds for run in unknown if run not in known)
    return (left + others * left / max(rounds, 1)) / len(running)


def _failure(folder: Path, last: int) -> str:
    """Return the last line of a traceback of a round that was not finished; empty without one."""
    for path in sorted(folder.glob("round-*.txt"), reverse=True):
        number = path.name.split("-")[1]
        if number.isdigit() and int(number) > last:
            try:
                said = path.read_text(encoding="utf-8", errors="replace").split("\n")
            except OSError:
                continue
            told = [line for line in said if line and not line.startswith((" ", "|", "+"))]
            return f"{told[-1][:200] if told else 'an error'} (see {path})"
    return ""


def _command(header: Mapping, place: Path) -> str:
    """Return the command that goes on with a run."""
    command = str(header.get("command") or "")
    if command.startswith("fednf run"):
        return f"{command} --resume" if " --out" in command else f"{command} --out {place} --resume"
    if command.startswith("fednf"):
        return command  # a study's, which goes on by itself
    return f"{command}, with run.resume=true" if command else "its program, with resume=True"


def _name(place: Path, folder: Path) -> str:
    return place.name if place == folder else str(place.relative_to(folder))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _json(path: Path) -> dict | None:
    """Return what a file holds; None where there is none, or nothing that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _position(place: Path, done: bool, running: bool) -> tuple[int | None, Mark | None]:
    """Return the last round that is permanent, and where its line is; nothing before round 0.

    While a run goes on, its checkpoint is not read whole at every look.

    Raises:
        ValueError: the result or the checkpoint is damaged.
    """
    if done:
        return sys.maxsize, Journal(place).covers().get(ROUNDS)
    path = place / CHECKPOINT
    try:
        if not running:
            stat = path.stat()
            return _whole_checkpoint(place, stat.st_size, stat.st_mtime_ns)
        with safe_open(path, framework="numpy") as file:
            said = json.loads(file.metadata()["checkpoint"])
            return int(said["round"]), covered(said).get(ROUNDS)
    except FileNotFoundError:
        return None, None
    except ConfigError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}") from None


@lru_cache(maxsize=1024)
def _whole_checkpoint(place: Path, size: int, written: int) -> tuple[int | None, Mark | None]:
    """Read a checkpoint that has not been read since it was written."""
    found = Journal(place).checkpoint()
    return (found.round, found.covers.get(ROUNDS)) if found else (None, None)


def _lines(place: Path, end: Mark | None) -> tuple[list[dict], float]:
    """Return the lines of rounds, without one that is cut, and the seconds since the last.

    Raises:
        ValueError: they are not what the run wrote.
    """
    path = place / ROUNDS
    try:
        stat = path.stat()
    except FileNotFoundError:
        return read_permanent(path, "", end), 0.0
    lines = _parsed(path, Journal(place).run, end, stat.st_size, stat.st_mtime_ns)
    return lines, max(time.time() - stat.st_mtime, 0.0)


@lru_cache(maxsize=1024)
def _parsed(path: Path, run: str, end: Mark | None, size: int, written: int) -> list[dict]:
    """Read a file that has not been read since it was written."""
    return read_permanent(path, run, end)
