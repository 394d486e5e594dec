"""The command line: ``fednf``, or ``python -m experiments``."""

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Annotated, NoReturn

import click
import typer
from rich.console import Console
from rich.table import Table

import partitions
from experiments import study as studies_of
from experiments.progress import Display, say
from experiments.studies import STUDIES
from experiments.study import Study
from experiments.workers import Job, work_through
from fl.config import Experiment
from fl.data import DATASETS, deal, fashion_mnist_small, load
from fl.journal import Journal
from fl.runtime import run as run_inline
from fl.settings import ConfigError, parse_settings, read_toml

app = typer.Typer(
    help="Federated, normalizer-free: how networks without batch normalization train on unequal "
    "clients with micro-batches.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets, and how they are dealt out.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A knob; may be given many times."),
]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file of knobs.")]
Out = Annotated[Path | None, typer.Option("--out", help="The folder to write to.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines instead of bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs side by side; one core each. Default: all cores."),
]

console = Console()


@app.callback()
def _before_every_command() -> None:
    # The cache serves code that runs from a Flower bundle; nothing else needs it to succeed.
    with suppress(OSError):
        fashion_mnist_small.fill_cache()


@app.command()
def demo(out: Out = None, jobs: Jobs = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Compare six recipes on shipped images, in two to three minutes, and write a report."""
    _study(STUDIES["demo"](), out or Path("runs/demo"), jobs, quiet, as_json)


@app.command()
def run(
    config: Config = None,
    settings: Settings = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run one experiment."""
    knobs = _knobs(config, settings)
    name = f"{knobs.recipe}_seed-{knobs.seed}"
    folder = out or Path("runs") / f"{name}_{knobs.identity[:8]}"
    journal, job = Journal(folder), Job(name, knobs, folder)
    display = Display([job], console, quiet)
    finished_before = journal.result() is not None
    try:
        with display.shown():
            result = run_inline(
                knobs,
                journal,
                resume=resume,
                watch=lambda line: display.round(job, line),
                command=_command(),
            )
    except KeyboardInterrupt:
        _interrupted(f"{_command()} --resume" if out else f"{_command()} --out {folder} --resume")
    if finished_before:
        _say(f"{folder} holds this experiment, finished; nothing was trained again")
    _say(
        f"accuracy {result['final_accuracy']:.3f} after {result['rounds']} rounds, best "
        f"{result['best_accuracy']:.3f} in round {result['best_round']}; "
        f"{result['images_per_second']:,.0f} images/s; {folder}"
    )
    _say(f"model_sha256 {result['model_sha256']}")
    if as_json:
        _say(json.dumps({**result, "folder": str(folder)}))


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study by name, or a Python file with a STUDY.")],
    out: Out = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do all runs that a question needs, skip those that are done, and write a report."""
    if name in STUDIES:
        chosen = STUDIES[name]()
    elif name.endswith(".py"):
        chosen = studies_of.from_file(Path(name))
    else:
        raise ConfigError(f"no study {name}; known: {', '.join(STUDIES)}, or a Python file")
    _study(chosen, out or Path("runs") / chosen.name, jobs, quiet, as_json)


@app.command()
def studies() -> None:
    """List the studies."""
    table = Table("study", "runs", "question", box=None)
    for name, make in STUDIES.items():
        table.add_row(name, str(len(make().experiments)), make().question)
    _show(table)


@app.command()
def report(folder: Path, as_json: Json = False) -> None:
    """Turn the runs below a folder into tables, figures and one HTML page."""
    page = _plots().write(folder)
    _say(f"report: {page}")
    if as_json:
        _say(json.dumps({"report": str(page)}))


@data_app.command("list")
def data_list() -> None:
    """List the data sets."""
    table = Table("name", "train", "test", "image", "classes", "licence", box=None)
    for name in DATASETS:
        dataset = load(name)
        shape = "x".join(map(str, dataset.train.images.shape[1:]))
        sizes = f"{len(dataset.train):,}", f"{len(dataset.test):,}"
        table.add_row(name, *sizes, shape, str(len(dataset.classes)), dataset.licence)
    _show(table)


@data_app.command("show")
def data_show(config: Config = None, settings: Settings = None, out: Out = None) -> None:
    """Show who holds what in a deal; with --out, draw it too."""
    plots = _plots() if out else None
    knobs = _knobs(config, settings)
    dataset = load(knobs.data.name)
    parts = [part.numpy() for part in deal(knobs.data.name, knobs.partition, knobs.seed)]
    counts = partitions.counts(dataset.train.labels.numpy(), parts, len(dataset.classes))
    table = Table("client", "images", *dataset.classes, box=None)
    for client, row in enumerate(counts.tolist()):
        table.add_row(str(client), str(sum(row)), *(str(count or "·") for count in row))
    _show(table)
    _say(str(partitions.measure(counts)))
    if plots and out:
        title = f"{knobs.partition.kind}, alpha {knobs.partition.alpha}, seed {knobs.seed}"
        plots.save(plots.deal(counts, dataset.classes, title), out / "deal")
        _say(f"drawn: {out / 'deal.png'}, {out / 'deal.svg'}")


def _study(chosen: Study, out: Path, jobs: int | None, quiet: bool, as_json: bool) -> None:
    """Do a study's runs and write its report."""
    plots, begun = _plots(), time.monotonic()
    chosen.begin(out, _command())
    work = [
        Job(name, experiment, out / name)
        for name, experiment in zip(chosen.folders(), chosen.experiments, strict=True)
    ]
    display = Display(work, console, quiet)
    try:
        with display.shown():
            failed = work_through(work, jobs or _cores(), _command(), display.round)
    except KeyboardInterrupt:
        _interrupted(_command())
    for name, reason in failed.items():
        _say(f"failed: {name}: {reason}")
    page = str(plots.write(out)) if len(failed) < len(work) else None
    _say(f"{len(work) - len(failed)} of {len(work)} runs in {time.monotonic() - begun:.0f} s")
    if page:
        _say(f"report: {page}")
    if as_json:
        _say(json.dumps({"report": page, "runs": len(work), "failed": failed}))
    if failed:
        raise typer.Exit(1)


def _knobs(config: Path | None, settings: list[str] | None) -> Experiment:
    """Read knobs from a file, then from --set, which wins."""
    flat = {**(read_toml(config) if config else {}), **parse_settings(settings or [])}
    for key in flat:
        if key.startswith("run."):
            raise ConfigError(f"{key} is for flwr run; here it is --out DIR and --resume")
    return Experiment.from_flat(flat)


def _plots() -> ModuleType:
    """Import the report and its figures, which need what a device does not have."""
    try:
        from experiments import report
    except ModuleNotFoundError as error:
        raise ConfigError(f'plots need {error.name}: pip install "fednf[sim]"') from None
    return report


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command() -> str:
    """Return the command that was typed, without --resume."""
    return shlex.join(["fednf", *(word for word in sys.argv[1:] if word != "--resume")])


def _say(text: str) -> None:
    say(console, text)


def _show(table: Table) -> None:
    """Print a table; outside of a terminal it takes the width that it needs."""
    (console if console.is_terminal else Console(width=200)).print(table)


def _interrupted(again: str) -> NoReturn:
    _say(f"interrupted; every finished round is kept. Go on with: {again}")
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
    except (ConfigError, FileNotFoundError) as error:
        _stop(2, str(error))
    except (click.Abort, KeyboardInterrupt):
        _stop(130, "interrupted")
    except (OSError, RuntimeError) as error:
        _stop(1, f"{type(error).__name__}: {error}")
    sys.exit(status)


def _stop(status: int, message: str) -> NoReturn:
    sys.stderr.write(f"fednf: {' '.join(message.split())}\n")
    sys.exit(status)
