"""The command line: ``fednf``, or ``python -m experiments``."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import click
import typer
from rich.table import Table

from experiments.cli import bench, data, deploy, probe
from experiments.cli.progress import Display
from experiments.cli.terminal import (
    Config,
    Json,
    Out,
    Quiet,
    Settings,
    console,
    ray_actors,
    say,
    show,
    typed,
)
from experiments.cli.terminal import flat as flat_knobs
from experiments.cli.terminal import knobs as read_knobs
from experiments.cli.terminal import plots as load_plots
from experiments.studies import study as studies_of
from experiments.studies.catalogue import STUDIES
from experiments.studies.study import Study
from experiments.studies.workers import Job, work_through, work_with
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import fashion_mnist_small
from fl.data.sets import NotFetched
from fl.nn.recipes import RECIPES
from fl.reproducibility.provenance import cores
from fl.server.journal import Journal
from fl.simulation import run as run_simulation
from fl.simulation.worker_pool import Team

app = typer.Typer(
    help="Federated, normalizer-free: how networks without batch normalization train on unequal "
    "clients with micro-batches.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # theirs show all variables: thousands of lines
)
app.add_typer(data.app, name="data")
app.add_typer(deploy.app, name="deploy")

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs side by side; one core each. Default: all cores."),
]


class Runtime(StrEnum):
    """Where the clients of a run are simulated."""

    inline = "inline"
    ray = "ray"


@app.callback()
def _before_every_command() -> None:
    # The cache serves code that runs from a Flower bundle; nothing else needs it to succeed.
    with suppress(OSError):
        fashion_mnist_small.fill_cache()


@app.command()
def demo(out: Out = None, jobs: Jobs = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Compare six recipes on shipped images, in two to three minutes, and write a report."""
    _study(STUDIES["demo"]["small"](), out or Path("runs/demo"), jobs, quiet, as_json)


@app.command()
def run(
    config: Config = None,
    settings: Settings = None,
    out: Out = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that train clients. Default: a core each, or 1 for a short run.",
        ),
    ] = None,
    runtime: Annotated[
        Runtime,
        typer.Option(
            "--runtime", help="ray: on the cluster of RAY_ADDRESS or, without it, on this machine."
        ),
    ] = Runtime.inline,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run one experiment."""
    knobs = read_knobs(config, settings)
    name = f"{knobs.recipe}_seed-{knobs.seed}"
    folder = out or Path("runs") / f"{name}_{knobs.identity[:8]}"
    journal, job = Journal(folder), Job(name, knobs, folder)
    display = Display([job], console, quiet)
    finished_before = journal.result() is not None
    try:
        with display.shown(), _team(None, workers, runtime is Runtime.ray) as team:
            result = run_simulation(
                knobs,
                journal,
                workers=workers,
                team=team,
                resume=resume,
                watch=lambda line: None if finished_before else display.round(job, line),
                command=typed(),
            )
    except KeyboardInterrupt:
        _interrupted(f"{typed()} --resume" if out else f"{typed()} --out {folder} --resume")
    if finished_before:
        say(f"{folder} holds this experiment, finished; nothing was trained again")
    say(
        f"accuracy {result['final_accuracy']:.3f} after {result['rounds']} rounds, best "
        f"{result['best_accuracy']:.3f} in round {result['best_round']}; "
        f"{result['images_per_second']:,.0f} images/s; {folder}"
    )
    say(f"model_sha256 {result['model_sha256']}")
    if as_json:
        say(json.dumps({**result, "folder": str(folder)}))


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study by name, or a Python file with a STUDY.")],
    scale: Annotated[str | None, typer.Option("--scale", help="small (default) or full.")] = None,
    settings: Settings = None,
    out: Out = None,
    jobs: Jobs = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="A Ray cluster that all of each run's clients train on, or local: a Ray of this "
            "machine.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do all runs that a question needs, skip those that are done, and write a report."""
    if name in STUDIES:
        scales = STUDIES[name]
        if scale is not None and scale not in scales:
            raise ConfigError(f"study {name} has no scale {scale}; known: {', '.join(scales)}")
        chosen = scales[scale or next(iter(scales))]()
    elif not name.endswith(".py"):
        raise ConfigError(f"no study {name}; known: {', '.join(STUDIES)}, or a Python file")
    elif scale is not None:
        raise ConfigError(f"--scale={scale}: a study of a file has one scale; leave it out")
    else:
        chosen = studies_of.from_file(Path(name))
    if settings:
        chosen = chosen.fixing(flat_knobs(None, settings))
    if ray and jobs:
        raise ConfigError("--jobs: with --ray runs follow each other; leave one of them out")
    _study(chosen, out or Path("runs") / chosen.name, jobs, quiet, as_json, ray)


@app.command()
def studies() -> None:
    """List the studies."""
    table = Table("study", "scale", "runs", "question", box=None)
    for name, scales in STUDIES.items():
        for scale, make in scales.items():
            made = make()
            table.add_row(name, scale, str(len(made.experiments)), made.question)
    show(table)


@app.command()
def knobs() -> None:
    """List every knob with its default and what it does, and every recipe."""
    said = Experiment.describe()
    table = Table("knob", "default", "what it does", box=None)
    for key, value in Experiment().to_flat().items():
        table.add_row(key, str(value), " ".join(said[key].split()))
    show(table)
    recipes = Table("recipe", "what fills the slots", box=None)
    for name, row in RECIPES.items():
        recipes.add_row(name, row.description)
    show(recipes)


@app.command()
def report(folder: Path, as_json: Json = False) -> None:
    """Turn the runs below a folder into tables, figures and one HTML page."""
    page = load_plots().write(folder)
    say(f"report: {page}")
    if as_json:
        say(json.dumps({"report": str(page)}))


app.command()(probe.probe)
app.command()(bench.bench)


def _study(
    chosen: Study, out: Path, jobs: int | None, quiet: bool, as_json: bool, ray: str | None = None
) -> None:
    """Do a study's runs and write its report."""
    plots, begun = load_plots(), time.monotonic()
    chosen.begin(out, typed())
    work = [
        Job(name, experiment, out / name)
        for name, experiment in zip(chosen.folders(), chosen.experiments, strict=True)
    ]
    display, jobs = Display(work, console, quiet), 1 if ray else jobs or cores()
    say(f"runs: {len(work)}, at most {jobs} at a time, into {out}")
    try:
        with display.shown(), _team(None if ray == "local" else ray, None, bool(ray)) as team:
            if team:
                failed = work_with(team, work, typed(), display.round)
            else:
                failed = work_through(work, jobs, typed(), display.round)
    except KeyboardInterrupt:
        _interrupted(typed())
    for name, reason in failed.items():
        say(f"failed: {name}: {reason}")
    page = str(plots.write(out)) if len(failed) < len(work) else None
    say(f"{len(work) - len(failed)} of {len(work)} runs in {time.monotonic() - begun:.0f} s")
    if page:
        say(f"report: {page}")
    if as_json:
        say(json.dumps({"report": page, "runs": len(work), "failed": failed}))
    if failed:
        raise typer.Exit(1)


@contextmanager
def _team(address: str | None, size: int | None, wanted: bool) -> Iterator[Team | None]:
    """Give Ray's actors, if they are wanted, and end them."""
    if not wanted:
        yield None
        return
    with closing(ray_actors().Actors(address, size)) as team:
        yield team


def _interrupted(again: str) -> NoReturn:
    say(f"interrupted; every finished round is kept. Go on with: {again}")
    raise typer.Exit(130)


def main() -> None:
    """Run the command line; one line and exit status 2 for bad input, 1 for a failed run."""
    try:
        status = app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _stop(2, error.format_message())
    except ConfigError as error:
        _stop(2, str(error))
    except (click.Abort, KeyboardInterrupt):
        _stop(130, "interrupted")
    except NotFetched as error:
        _stop(1, str(error))
    except (OSError, RuntimeError) as error:
        _stop(1, f"{type(error).__name__}: {error}")
    sys.exit(status)


def _stop(status: int, message: str) -> NoReturn:
    sys.stderr.write(f"fednf: {' '.join(message.split())}\n")
    sys.exit(status)
