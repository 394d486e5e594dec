"""The commands about real devices: ``fednf deploy init | check``."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from experiments import deploy
from experiments.terminal import Config, Settings, flat, say
from fl.config import Experiment
from fl.settings import ConfigError

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
    server = deploy.Server(tuple(host or [socket.gethostname()]), port)
    deploy.init(folder, knobs, server)
    say(f"{folder} has what a server and {devices} devices need; go on with {folder / 'README.md'}")
