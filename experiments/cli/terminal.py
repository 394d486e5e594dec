"""What all commands share: options, the console, and how a line or a table is printed."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from fl.config import Experiment, components
from fl.config.components import sources
from fl.config.parsing import ConfigError, Value, parse_settings, read_toml
from fl.config.renamed import modernize
from fl.data.catalogue import data_beside
from fl.reproducibility.errors import writable
from fl.reproducibility.files import at_home
from fl.server.journal import EXPERIMENT, Journal
from fl.simulation.worker_pool import WorkerPool
from fl.tasks import Metric

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A knob; may be given many times."),
]


def _at_home(path: Path | None) -> Path | None:
    """Read a ``~`` in --out=~/x, which a shell leaves there."""
    return path and at_home(path)


Config = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of knobs.", callback=_at_home)
]
Out = Annotated[
    Path | None, typer.Option("--out", help="The folder to write to.", callback=_at_home)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines instead of bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME[:DIR]",
        help="Log figures to tensorboard, mlflow or wandb (offline); may be given many times.",
    ),
]
Callbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--callback",
        metavar="FILE.py:NAME",
        help="A callback of your own, told of every round; may be given many times.",
    ),
]

console = Console()


def say(text: str, on: Console = console) -> None:
    """Print a line as it is: no wrapping, no markup, and nothing that a terminal would obey."""
    on.print(writable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def written(value: float | None, metric: Metric) -> str:
    """Write a metric's value on a line of progress."""
    if value is None:
        return "unknown"
    return f"{value:.3f}" if metric.fraction else f"{value:.4g}"


def typed() -> str:
    """Return the command that was typed, without --resume."""
    return shlex.join(["fednf", *(word for word in sys.argv[1:] if word != "--resume")])


def show(table: Table) -> None:
    """Print a table; outside of a terminal it takes the width that it needs."""
    (console if console.is_terminal else Console(width=200)).print(table)


def untrained(config: Path | None, settings: list[str] | None) -> Experiment:
    """Read an experiment of which nothing is trained, from --config and --set, which wins.

    Nobody is asked, so the default of how many are does not stand in the way of fewer clients.
    """
    return Experiment.from_flat({"sampling.clients": 1, **flat(config, settings)})


def flat(config: Path | None, settings: list[str] | None) -> dict[str, Value]:
    """Read knobs, as they were given, from a file, then from --set, which wins."""
    in_file = from_file(read_toml(config), config.parent) if config else {}
    found = {**in_file, **modernize(parse_settings(settings or []))}
    for key in found:
        if key in ("run.dir", "run.resume", "run.callbacks"):
            raise ConfigError(
                f"{key} is for flwr run; here it is --out DIR, --resume and --callback"
            )
    return found


def from_file(flat: Mapping[str, Value], folder: Path) -> dict[str, Value]:
    """Return the knobs of a file, whose components and data may lie beside it."""
    found = components.beside(modernize(flat), folder)
    return data_beside(found, folder)


def knobs_of(
    folder: Path | None, given: Mapping[str, Value], resume: bool, rounds: int | None
) -> Experiment:
    """Return the experiment that a command is about: a folder's, as far as the command goes on.

    Args:
        folder: `--out`; None: one that is named by the knobs.
        given: the knobs of the command.
        resume: `--resume`.
        rounds: `--rounds`; the run in the folder goes on to so many.

    Raises:
        ConfigError: the folder has no run to go on with, and no knobs are given to begin one.
    """
    length = {"rounds": rounds} if rounds else {}
    if folder and (resume or rounds):
        if (folder / EXPERIMENT).is_file():
            there = Experiment.from_flat(Journal(folder).header()["knobs"])
            return there.replace({**given, **length, **_as_they_are_now(given, there)})
        if not given:
            raise ConfigError(
                f"{folder} holds no run to go on with; leave --resume and --rounds out to begin one"
            )
    return Experiment.from_flat({**given, **length})


def _as_they_are_now(given: Mapping[str, Value], there: Experiment) -> dict[str, Value]:
    """Return the sources of an experiment with those that a command names as their files are now.

    So a run whose file was changed is refused. A file that is gone is taken from the run's folder.
    """
    named = {key: str(value) for key, value in given.items() if key in components.KEYS}
    named = {
        key: text
        for key, text in named.items()
        if all(Path(name.rpartition(":")[0]).is_file() for name in components.names(text))
    }
    if not any(map(components.names, named.values())):
        return {}
    _, now = components.gather(named, "")
    return {"components": sources.as_text(sources.parse(there.components) | sources.parse(now))}


def ray_actors() -> ModuleType:
    """Import what trains clients on Ray, which a device does not have."""
    try:
        from fl.simulation import ray_pool
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'Ray is not here ({error.name}): install fednf with its extra "sim", see README'
        ) from None
    return ray_pool


def plots() -> ModuleType:
    """Import the report and its figures, which need what a device does not have."""
    try:
        from experiments import report
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'plots need {error.name}: install fednf with its extra "sim", see README'
        ) from None
    return report


@contextmanager
def worker_pool(address: str | None, size: int | None, wanted: bool) -> Iterator[WorkerPool | None]:
    """Give Ray's actors, if they are wanted, and end them."""
    if not wanted:
        yield None
        return
    with closing(ray_actors().RayPool(address, size)) as pool:
        yield pool


def interrupted(again: str) -> NoReturn:
    """Say how to go on after Ctrl-C, and end with status 130."""
    say(f"interrupted; every finished round is kept. Go on with: {again}")
    raise typer.Exit(130)
