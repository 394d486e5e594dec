"""The command about signals: ``fednf probe``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from rich.table import Table

from experiments import probe as probing
from experiments.cli import terminal
from experiments.cli.terminal import Config, Json, Out, Quiet, Settings, console, say
from fl.config.parsing import ConfigError
from fl.reproducibility.files import write_whole

Recipes = Annotated[
    str | None, typer.Option("--recipes", help="Names with commas between. Default: the knob's.")
]
Images = Annotated[int, typer.Option("--images", min=1, help="Training images in the batch.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Networks a recipe. Default: 3.")]
Runs = Annotated[
    list[Path] | None,
    typer.Option("--run", help="A run's folder: its last network. May be given many times."),
]


def probe(
    recipes: Recipes = None,
    config: Config = None,
    settings: Settings = None,
    images: Images = 256,
    seeds: Seeds = None,
    runs: Runs = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show what becomes of signals and gradients by depth, as networks begin or as runs end."""
    plots, folder = terminal.plots(), out or Path("runs/probe")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder")
    if runs and (recipes or config or settings or seeds):
        raise ConfigError("--run brings knobs of its own: leave out what else says which network")
    if runs:
        subjects = probing.checkpoints(runs)
    else:
        knobs = terminal.untrained(config, settings)
        names = [name.strip() for name in (recipes or knobs.recipe).split(",")]
        subjects = probing.at_initialization(knobs, names, seeds or 3)
    found = list(
        track(
            probing.measure(subjects, images),
            "measuring",
            total=len(subjects),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
    )
    plots.save(plots.propagation.figure(found), folder / "signals")
    write_whole(folder / "signals.csv", plots.propagation.as_csv(found))
    rows = plots.propagation.summary(found)
    terminal.show(_table(rows))
    say(f"drawn: {folder / 'signals.png'}, and as svg; every number: {folder / 'signals.csv'}")
    if as_json:
        say(json.dumps({"folder": str(folder), "networks": rows}))


_FACTORS = ("2E f²", "χ", "depth", "back")
_TITLES = (*_FACTORS, "ACV first", "last", "min", "max", "gradient ACV last/first")


def _table(rows: list[Mapping[str, str | float | None]]) -> Table:
    """Make the table: factors of layers, variances, how far gradients reach, and what is dead."""
    several = len({row["condition"] for row in rows}) > 1
    table = Table("network", *(["condition"] if several else []), box=None)
    for title in (*_TITLES, "dead channels"):
        table.add_column(title, justify="right")
    for row in rows:
        whose = [str(row["series"]), *([str(row["condition"])] if several else [])]
        acv = [_number(row[f"acv_{name}"]) for name in ("first", "last", "min", "max")]
        names = ("forward", "backward", "depth_forward", "depth_backward")
        factors = [_number(row[name]) for name in names]
        dead = "–" if row["dead"] is None else f"{row['dead']:.1%}"
        table.add_row(*whose, *factors, *acv, _number(row["gradient_last_to_first"]), dead)
    return table


def _number(value: object) -> str:
    return "–" if value is None else f"{value:.3g}"
