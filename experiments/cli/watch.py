"""The commands that read the folders of runs: ``fednf watch`` and ``fednf verify``."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.cli.progress import shortened
from experiments.cli.terminal import Json, console, say
from experiments.studies.status import STATES, RunStatus, Status, look
from experiments.verify import FILE_STATES
from experiments.verify import verify as verified
from fl.config.parsing import ConfigError

_EVERY = 2.0
"""Seconds between two looks."""
_WIDE = 200
"""Columns of what is printed where no terminal says how many there are."""


def watch(
    folder: Path,
    once: Annotated[bool, typer.Option("--once", help="Print one table, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far the runs and studies below a folder are, while they go on elsewhere."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the folder of a run or of a study")
    status = look(folder)
    if not status.runs:
        raise ConfigError(f"{folder} holds no run and no study")
    if as_json:
        say(json.dumps(_as_object(folder, status)))
    elif once or not console.is_terminal:
        width = console.width if console.is_terminal else _WIDE
        for row in _drawn(status, width, None):
            console.print(row, soft_wrap=isinstance(row, Text))
    else:
        _follow(folder, status)


def verify(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs, of studies or of many.")],
    as_json: Json = False,
) -> None:
    """Check every file of runs against its checksums; the exit status is 1 if one is damaged."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder; give the folder of a run or of a study")
    found = []
    for finding in (finding for folder in folders for finding in verified(folder)):
        found.append(finding)
        named = "" if finding.state == "damaged" else f"{finding.path}: "  # what is said names it
        say(f"{finding.state}: {named}{finding.said}")
    counts = Counter(finding.state for finding in found)
    say(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    if as_json:
        files = [{**asdict(finding), "path": str(finding.path)} for finding in found]
        say(json.dumps({"files": files, **{state: counts[state] for state in FILE_STATES}}))
    if counts["damaged"]:
        raise typer.Exit(1)


def _follow(folder: Path, status: Status) -> None:
    """Draw again and again, until nothing is running, or Ctrl-C."""
    quiet = 0  # looks at which nothing ran: between two runs of a study nothing does
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = _drawn(status, console.width, console.height - 3)
            live.update(Group(*rows), refresh=True)
            quiet = 0 if "running" in status.counts else quiet + 1
            if quiet > 1:
                return
            try:
                time.sleep(_EVERY)
            except KeyboardInterrupt:
                return
            status = look(folder)


def _drawn(status: Status, width: int, height: int | None) -> list[RenderableType]:
    """Return a table of runs, those of most interest first, and lines below it."""
    notes = [f"{run.state}: {run.name}: {run.note}" for run in status.runs if run.note]
    if "running" not in status.counts:
        notes += [f"stopped; go on with: {command}" for command in status.again]
    runs = sorted(status.runs, key=lambda run: STATES.index(run.state))
    shown = runs if height is None else runs[: max(height - len(notes) - 4, 3)]
    rows: list[RenderableType] = [_table(shown, width)]
    if len(shown) < len(runs):
        rows.append(Text(f"and {len(runs) - len(shown)} more"))
    return [*rows, Text(_total(status)), *map(Text, notes)]


def _table(runs: Sequence[RunStatus], width: int) -> Table:
    scores = {run.score for run in runs if run.score}
    named = scores.pop() if len(scores) == 1 else "score"
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for heading in ("round", named[:12], "best", "images/s", "left"):
        table.add_column(heading, no_wrap=True, justify="right")
    for run in runs:
        table.add_row(
            shortened(run.name, max(width - 60, 12)),
            run.state,
            f"{'-' if run.round is None else run.round}/{run.rounds}",
            _figure(run.latest, ".3f"),
            _figure(run.best, ".3f"),
            _figure(run.images_per_second, ",.0f"),
            _clock(run.seconds_left),
        )
    return table


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _clock(seconds: float | None) -> str:
    """Return a time as H:MM:SS."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _total(status: Status) -> str:
    done, asked = status.rounds
    states = ", ".join(f"{number} {state}" for state, number in status.counts.items())
    runs = len(status.runs)
    said = f"{runs} run{'s' if runs > 1 else ''}: {states}; {done} of {asked} rounds"
    return said + (f"; about {left} left" if (left := _clock(status.seconds_left)) else "")


def _as_object(folder: Path, status: Status) -> dict:
    done, asked = status.rounds
    return {
        "folder": str(folder),
        "states": status.counts,
        "rounds_done": done,
        "rounds": asked,
        "seconds_left": status.seconds_left,
        "go_on_with": list(status.again),
        "runs": [asdict(run) for run in status.runs],
    }
