"""The commands about real devices: ``fednf deploy init | check``."""

import socket
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from experiments.cli.terminal import Config, Settings, flat, say, show
from experiments.deploy.check import check
from experiments.deploy.folder import Server, init
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data.dataset import said

app = typer.Typer(help="Real devices, and what they need.", no_args_is_help=True)

Devices = Annotated[int, typer.Option("--devices", min=1, help="How many devices there are.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A name or address of the server; the first is what devices use."),
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="The server's port.")]


@app.command("init")
def deploy_init(
    folder: Path,
    devices: Devices,
    config: Config = None,
    settings: Settings = None,
    host: Hosts = None,
    port: Port = 8000,
) -> None:
    """Write the folder of a deployment: certificates, keys, data, scripts and what to do."""
    given = flat(config, settings)
    if (clients := given.setdefault("partition.clients", devices)) != devices:
        raise ConfigError(f"--devices {devices}, but partition.clients={clients}: make them equal")
    given.setdefault("sampling.clients", devices)
    knobs = Experiment.from_flat(given)
    server = Server(tuple(host or [socket.gethostname()]), port)
    init(folder, knobs, server)
    say(f"{folder} has what a server and {devices} devices need; go on with {folder / 'README.md'}")


@app.command("check")
def deploy_check(folder: Path) -> None:
    """Ask a running federation what it is, and say which device is not what it should be."""
    data, devices = check(folder)
    if data:
        say(f"the server's {said(data.told())}")
    table = Table(
        "device", "status", "images", "held out", "clock off by", "from", "problems", box=None
    )
    for device in devices:
        told = device.told
        table.add_row(
            str(device.number),
            device.status,
            str(told.get("images", "-")),
            str(told.get("held_out", "-")),
            f"{told['clock_off']:.0f} s" if "clock_off" in told else "-",
            escape(told.get("source", "-")),
            str(len(device.problems) or "-"),
        )
    show(table)
    for device in devices:
        for problem in device.problems:
            say(f"device {device.number}: {problem}")
    wrong = sum(bool(device.problems) for device in devices)
    say(f"{len(devices) - wrong} of {len(devices)} devices are as they should be")
    if wrong:
        raise typer.Exit(1)
