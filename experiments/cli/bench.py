"""The command about speed: ``fednf bench``."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.progress import Progress

from experiments.bench.contenders.catalogue import CONTENDERS
from experiments.bench.device import import_seconds
from experiments.bench.harness import timed
from experiments.bench.jobs import JOBS, MISSION, Size, job
from experiments.bench.machine import peak
from experiments.bench.table import print_case, print_growth
from experiments.cli.terminal import Json, Quiet, console, say, typed
from fl.config.parsing import ConfigError, Value, did_you_mean
from fl.reproducibility.files import write_whole
from fl.reproducibility.provenance import conditions, cores

Jobs = Annotated[
    list[str] | None, typer.Option("--job", help=f"{', '.join(JOBS)}; may be given many times.")
]
Widths = Annotated[
    list[int] | None,
    typer.Option("--width", min=1, help="Of networks; may be given many times. Default: a job's."),
]
Recipes = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="Of networks; may be given many times. Default: a job's."),
]
Data = Annotated[
    str | None, typer.Option("--data", help="The data set of `--job mission`. Default: cifar10.")
]
Batches = Annotated[
    list[int] | None,
    typer.Option("--batch-size", min=1, help="May be given many times. Default: 1, 4, 32."),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--contender", help="May be given many times. Default: all here but cold ones."),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        help="The contender that ratios are to. Default: loop-per-core; on a GPU sequential.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="Where ours train: cpu, or cuda, and then nobody else.")
]
Lanes = Annotated[
    list[int] | None,
    typer.Option("--lanes", min=1, help="Of our engine; may be given many times. Default: auto."),
]
Repetitions = Annotated[int, typer.Option("--repetitions", min=1, help="Turns that count.")]
Clients = Annotated[
    list[int] | None,
    typer.Option("--clients", min=1, help="In a round; may be given many times. Default: 10."),
]
Of = Annotated[
    int | None,
    typer.Option(
        "--of", min=1, help="All clients, of whom each round's are drawn. Default: those."
    ),
]
Images = Annotated[int, typer.Option("--images", min=1, help="Images a client, on average.")]
Unequal = Annotated[bool, typer.Option("--unequal", help="Clients hold Dirichlet(0.3) parts.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Timed rounds in a repetition.")]
File = Annotated[Path | None, typer.Option("--out", help="A JSON file for every figure.")]


def bench(
    jobs: Jobs = None,
    recipes: Recipes = None,
    data: Data = None,
    widths: Widths = None,
    batch_sizes: Batches = None,
    names: Names = None,
    against: Against = None,
    device: Device = "cpu",
    lanes: Lanes = None,
    repetitions: Repetitions = 5,
    clients: Clients = None,
    of: Of = None,
    images: Images = 50,
    unequal: Unequal = False,
    rounds: Rounds = 5,
    out: File = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Time our engines, bare PyTorch loops and other simulators on the same jobs, in turns."""
    jobs = _known("--job", jobs or ["cnn"], JOBS)
    _known("--device", [device], ("cpu", "cuda"))
    against = against or ("loop-per-core" if device == "cpu" else "sequential")
    racing, left_out = _racing(names, against, device)
    sizes = [Size(count, images, unequal, rounds, of) for count in dict.fromkeys(clients or [10])]
    given: dict[str, Sequence[Value] | None] = {"data.name": _data(data, jobs)}
    given |= {"recipe": recipes, "network.width": widths, "vectorized.lanes": lanes}
    if out is not None and out.is_dir():
        raise ConfigError(f"{out} is a folder; choose a file")
    with TemporaryDirectory() as folder, _bar(quiet) as bar:
        asked = product(jobs, _changes(device, given), batch_sizes or [1, 4, 32], sizes)
        todo = [
            (name, job(name, batch, size, Path(folder), change))
            for name, change, batch, size in asked
        ]
        begun, here, found = time.time(), _here(device, racing, left_out), []
        most = here["peak_flops_per_second"]
        task = bar.add_task("timing", total=len(todo) * len(racing) * (repetitions + 1))
        watch = partial(bar.advance, task)
        for name, knobs in todo:
            found.append({"job": name, **timed(knobs, racing, repetitions, against, most, watch)})
            print_case(found[-1], against)
    print_growth(found)
    report = {
        "command": typed(),
        "begun": begun,
        "against": against,
        "repetitions": repetitions,
        "sizes": [asdict(size) for size in sizes],
        **here,
        "jobs": found,
    }
    _hand_over(report, out, as_json)
    if any(case["failed"] for case in found):
        raise typer.Exit(1)


def _hand_over(report: dict, out: Path | None, as_json: bool) -> None:
    """Write the report, and print it, where that was asked for."""
    if out is not None:
        write_whole(out, json.dumps(report, indent=1) + "\n")
        say(f"every figure: {out}")
    if as_json:
        say(json.dumps(report))


def _data(name: str | None, jobs: Sequence[str]) -> list[Value] | None:
    """Return the data set of the mission's job, which alone may have another; None for its own."""
    if name and list(jobs) != [MISSION]:
        raise ConfigError(f"--data {name} is for --job {MISSION} alone, found --job {jobs[0]}")
    return [name] if name else None


def _changes(device: str, given: Mapping[str, Sequence[Value] | None]) -> list[dict[str, Value]]:
    """Return in which knobs jobs differ from the table's, for every choice of those given."""
    choices = [[(key, value) for value in dict.fromkeys(of)] for key, of in given.items() if of]
    return [{"device": device, **dict(choice)} for choice in product(*choices)]


def _here(device: str, racing: Sequence[str], left_out: Mapping[str, str]) -> dict:
    """Measure this machine, and say and return who runs on what; a GPU's peak is None."""
    for name, reason in left_out.items():
        say(f"left out: {name}: {reason}")
    if device == "cuda":
        most, device = None, torch.cuda.get_device_name()
        say(f"ours train on {device}, whose peak is not measured")
    else:
        most = peak()
        say(f"{cores()} cores, {most / 1e9:,.0f} GFLOP/s in products of float32 matrices")
    imported = import_seconds()
    say(f"a device imports fl.client.app in {imported:.2f} s, after torch and Flower")
    return {
        "conditions": conditions(),
        "opponents": {name: CONTENDERS[name].versions() for name in racing},
        "device": device,
        "cores": cores(),
        "peak_flops_per_second": most,
        "device_import_seconds": imported,
        "left_out": left_out,
    }


def _known(option: str, names: Sequence[str], table: Collection[str]) -> list[str]:
    """Return names, each once; all of them have to be in a table."""
    for name in names:
        if name not in table:
            raise ConfigError(f"{option} {name} does not exist; {did_you_mean(name, table)}")
    return list(dict.fromkeys(names))


def _racing(
    names: Sequence[str] | None, against: str, device: str
) -> tuple[list[str], dict[str, str]]:
    """Return the contenders that can run here, and why others can't."""
    able = [name for name, row in CONTENDERS.items() if device == "cpu" or row.movable]
    warm = [name for name in able if not CONTENDERS[name].cold]
    asked = _known("--contender", names or warm, CONTENDERS)
    _known("--against", [against], CONTENDERS)
    if bound := [name for name in asked if name not in able]:
        raise ConfigError(
            f"--contender {bound[0]} is timed on the CPU alone, found --device {device}; take "
            f"{', '.join(able)}"
        )
    if against not in asked:
        raise ConfigError(f"--against {against} is not among the contenders {', '.join(asked)}")
    absent = {name: reason for name in asked if (reason := CONTENDERS[name].missing())}
    if odd := [name for name in absent if name == against or names]:
        raise ConfigError(f"{odd[0]} can't run here: {absent[odd[0]]}")
    return [name for name in asked if name not in absent], absent


def _bar(quiet: bool) -> Progress:
    """Return a bar that goes away when all is done; none outside of a terminal."""
    return Progress(console=console, transient=True, disable=quiet or not console.is_terminal)
