"""The command line: ``fednf``, or ``python -m experiments``."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import click
import typer
from rich.table import Table

from experiments.cli import bench, data, deploy, new, predict, probe, study, tune, watch
from experiments.cli.progress import Display, Shown, new_profile, profiled
from experiments.cli.terminal import (
    Callbacks,
    Config,
    Json,
    Out,
    Quiet,
    Settings,
    Track,
    console,
    interrupted,
    knobs_of,
    say,
    show,
    typed,
    worker_pool,
    written,
)
from experiments.cli.terminal import flat as read_flat
from experiments.studies.workers import Job
from experiments.trackers import watchers
from fl.config import Experiment, components
from fl.config.parsing import ConfigError, did_you_mean
from fl.data import fashion_mnist_small
from fl.data.sets import NotFetched
from fl.nn.recipes import RECIPES, find
from fl.reproducibility.errors import in_words, writable
from fl.server.failures import Failure, RunFailed
from fl.server.journal import Journal
from fl.server.opening import check
from fl.simulation import run as run_simulation
from fl.simulation.python import default_folder
from fl.simulation.run import clear_cache
from fl.tasks import Metric, objective
from strategies import STRATEGIES
from strategies import find as find_strategy

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


class Runtime(StrEnum):
    """Where the clients of a run are simulated."""

    inline = "inline"
    ray = "ray"


@app.callback()
def _before_every_command() -> None:
    # The cache serves code that runs from a Flower bundle; nothing else needs it to succeed.
    with suppress(OSError):
        fashion_mnist_small.fill_cache()
    clear_cache()


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
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on after an interruption; with --out, knobs are known."),
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            help="Rounds in all; the run in --out goes on to so many, finished or not.",
        ),
    ] = None,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="One process, one client after another; a client's first exception is raised as "
            "it is, so that breakpoint() and post-mortem debugging work.",
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Show what workers were at and when: a table, and profile.png, .svg and .csv.",
        ),
    ] = False,
    track: Track = None,
    callback: Callbacks = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run one experiment."""
    if debug and (workers or runtime is Runtime.ray):
        raise ConfigError("--debug trains in one process; leave --workers and --runtime out")
    noted = new_profile(runtime is Runtime.ray) if profile else None
    made = [make() for make in watchers(track or [], callback or [])]
    knobs = knobs_of(out, read_flat(config, settings), resume, rounds)
    resume = resume or rounds is not None
    folder = out or default_folder(knobs)
    journal, job = Journal(folder), Job(f"{knobs.recipe}_seed-{knobs.seed}", knobs, folder)
    display = Display([job], console, quiet or debug)
    shown = Shown(display, job)
    finished_before = check(journal, knobs, resume).result is not None
    try:
        with display.shown(), worker_pool(None, workers, runtime is Runtime.ray) as pool:
            result = run_simulation(
                knobs,
                journal,
                workers=workers,
                pool=pool,
                debug=debug,
                resume=resume,
                profile=noted,
                callbacks=made if finished_before else [shown, *made],
                command=typed(),
            )
    except KeyboardInterrupt:
        interrupted(f"{typed()} --resume" if out else f"{typed()} --out {folder} --resume")
    say(f"{_came_to(result, objective(knobs).primary)}; {folder}")
    if finished_before:
        say(f"{folder} holds this experiment, finished; nothing was trained again")
    else:
        say(shown.account())
    for promise in result.get("privacy", ()):
        say(promise["text"] + ("; result.json has what it assumes" * bool(promise["assumes"])))
    say(f"model_sha256 {result['model_sha256']}")
    if noted:
        profiled(noted, folder)
    if as_json:
        say(json.dumps({**result, "folder": str(folder)}))


def _came_to(result: Mapping, metric: Metric) -> str:
    """Return in words what a run came to."""
    last, best = (written(result[f"{when}_{metric.name}"], metric) for when in ("final", "best"))
    untrained = " (the untrained network is best)" if result["best_round"] == 0 else ""
    return (
        f"{metric.title} {last} after {result['rounds']} rounds, best {best} in round "
        f"{result['best_round']}{untrained}; {result['images_per_second']:,.0f} images/s; ended by "
        f"{result.get('ended_by', 'its rounds')}"
    )


def knobs(
    component: Annotated[
        str | None,
        typer.Argument(
            help="A component, FILE.py:NAME, or a strategy, such as fedadam: list its own "
            "parameters. With strategy=FILE.py:NAME as what it is used."
        ),
    ] = None,
) -> None:
    """List every knob with its default and what it does, and every recipe."""
    if component:
        show(_options(component))
        return
    said = Experiment.describe()
    table = Table("knob", "default", "what it does", box=None)
    for key, value in Experiment().to_flat().items():
        table.add_row(key, str(value), " ".join(said[key].split()))
    show(table)
    recipes = Table("recipe", "what fills the slots", box=None)
    for name, row in {**RECIPES, "own": find("own")}.items():
        recipes.add_row(name, row.description)
    show(recipes)


def _options(text: str) -> Table:
    """Make the table of a component's own parameters."""
    part, _, name = text.rpartition("=")
    if part not in ("", *components.PARTS):
        raise ConfigError(f"{part}={name}: {did_you_mean(part, components.PARTS)}")
    part, thing = _named(part, name)
    table = Table("option", "default", "type", box=None)
    for option, field in components.parameters(components.PARTS[part], thing).model_fields.items():
        default = "required" if field.is_required() else str(field.default)
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        table.add_row(f"{part}.options.{option}", default, kind)
    return table


def _named(part: str, name: str) -> tuple[str, Any]:
    """Return a component, or one of our strategies, and the part that it is for."""
    if name in STRATEGIES and part in ("", "strategy"):
        return "strategy", find_strategy(name)
    if not components.is_component(name):
        raise ConfigError(f"{name} is no component: expected FILE.py:NAME or package.module:NAME")
    found, sources = components.gather({part: name}, "")
    thing = components.find(part or "component", found[part], sources)
    return part or components.part_of(thing), thing


for command in (
    study.demo,
    new.new,
    run,
    study.study,
    study.studies,
    tune.tune,
    watch.watch,
    watch.verify,
    study.report,
    probe.probe,
    predict.predict,
    bench.bench,
    knobs,
):
    app.command()(command)


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
    except RunFailed as error:
        sys.stderr.write(error.trace)
        _stop(1, str(error))
    except Exception as error:
        if "--debug" in sys.argv[1:]:  # as it is, for a debugger
            raise
        if isinstance(error, OSError):
            _stop(1, in_words(error))
        failure = Failure.of(error)
        sys.stderr.write(failure.short)
        _stop(1, f"{failure.reason} ({failure.place})")
    sys.exit(status)


def _stop(status: int, message: str) -> NoReturn:
    sys.stderr.write(f"fednf: {writable(' '.join(message.split()))}\n")
    sys.exit(status)
