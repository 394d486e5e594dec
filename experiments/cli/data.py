"""The commands about data: ``fednf data list | fetch | show | deal``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import partitions
from experiments.cli import terminal
from experiments.cli.terminal import Config, Out, Quiet, Settings, console, say
from fl.config.parsing import ConfigError
from fl.data import CATALOGUE, deal, fashion_mnist_small, load, write_shard
from fl.data.catalogue import find, place, read
from fl.data.dataset import DataNotHere, said
from fl.data.sets import ORIGINS, FetchProgress, fetch
from fl.data.shares import named_classes
from fl.reproducibility.files import at_home
from fl.reproducibility.machine import size

Folder = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="Where the folders go.", callback=at_home),
]

app = typer.Typer(help="Data sets, and how they are dealt out.", no_args_is_help=True)


@app.command("list")
def data_list() -> None:
    """List the data sets that have a name, and whether they are on this machine."""
    table = Table(
        "name", "train", "test", "shape", "classes", "domains", "here", "licence", box=None
    )
    for entry in CATALOGUE.values():
        table.add_row(
            entry.name,
            f"{entry.train:,}",
            f"{entry.test:,}",
            "x".join(map(str, entry.shape)),
            str(len(entry.classes)),
            str(len(entry.domains) or "-"),
            _here(entry.name),
            entry.licence,
        )
    terminal.show(table)


@app.command("fetch")
def data_fetch(name: str, quiet: Quiet = False) -> None:
    """Fetch a data set by name, once, and say whose it is."""
    entry = find(name)
    try:
        read(entry)
    except DataNotHere:
        _fetch(name, quiet)
    except ConfigError as damaged:
        say(str(damaged).partition("; ")[0])
        _fetch(name, quiet)
    else:
        say(f"{name} is on this machine already, and sound")
    if name != fashion_mnist_small.NAME:
        say(f"file: {place(name)}, {size(place(name).stat().st_size)}")
    say(f"licence: {entry.licence}")
    say(f"cite: {entry.citation}")


@app.command("show")
def data_show(config: Config = None, settings: Settings = None, out: Out = None) -> None:
    """Show who holds what in a deal; with --out, draw it, and examples of every class."""
    plots = terminal.plots() if out else None
    knobs = terminal.untrained(config, settings)
    parts, (labels, names) = [part.numpy() for part in deal(knobs)], named_classes(knobs)
    say(said(load(knobs).told()))
    counts = partitions.counts(labels, parts, len(names))
    table = Table("client", "examples", *map(escape, names), box=None)
    for client, row in enumerate(counts.tolist()):
        table.add_row(str(client), str(sum(row)), *(str(count or "·") for count in row))
    terminal.show(table)
    say(str(partitions.measure(counts)))
    if plots and out:
        title = f"{plots.partition(knobs.to_flat())}, seed {knobs.seed}"
        plots.save(plots.deal(counts, names, title), out / "deal")
        plots.save(plots.contact_sheet(load(knobs), labels, names), out / "examples")
        say(f"drawn: {out / 'deal.png'}, {out / 'examples.png'}, and both as svg")


@app.command("deal")
def data_deal(out: Folder, config: Config = None, settings: Settings = None) -> None:
    """Write what every client is dealt to OUT/device-K/shard.npz, for devices of their own."""
    knobs = terminal.untrained(config, settings)
    for number in range(knobs.partition.clients):
        file = write_shard(out / f"device-{number}", number, knobs)
        say(f"{file}, {size(file.stat().st_size)}")
    say('each device\'s node config: partition-id=K data-path="/its/folder"')


def _here(name: str) -> str:
    """Say whether a data set is on this machine, or else how much there is to fetch."""
    if name == fashion_mnist_small.NAME:
        return "shipped"
    if place(name).is_file():
        return size(place(name).stat().st_size)
    first = ORIGINS[name][0]
    return f"no; {size(first.size)} to fetch" if first.size else "no; Hugging Face hub"


def _fetch(name: str, quiet: bool) -> None:
    with _shown(quiet) as report:
        fetch(name, report)
    say(f"fetched {name} from {read(find(name)).source}")


@contextmanager
def _shown(quiet: bool) -> Iterator[FetchProgress]:
    """Show what is under way: a bar for each package in a terminal, a line elsewhere."""
    seen = {}
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    bars = console.is_terminal and not quiet
    with Progress(*columns, console=console, disable=not bars) as progress:

        def report(what: str, done: int, total: int) -> None:
            if what not in seen:
                seen[what] = progress.add_task(what, total=total, visible=total > 0)
                if not (bars and total):
                    say(f"{what}, {size(total)}" if total else what)
            progress.update(seen[what], completed=done)

        yield report
