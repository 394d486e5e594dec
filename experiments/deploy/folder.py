"""The folder of a deployment, made in one go: a part for the server and one for each device."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from string import Template

from experiments.deploy.app import needed
from experiments.deploy.credentials import certificates, key_pair
from fl.config import DEVICES, Experiment
from fl.config.parsing import ConfigError, to_toml
from fl.data import catalogue, write_shard
from fl.server.app import prepare

CONNECTION = "fednf"
"""What Flower's command line calls the server."""

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("superlink.sh", "register.sh", "remove.sh", "run.sh", "stop.sh")  # the operator's
_LOCAL = ("localhost", "127.0.0.1", "::1")
_OWN_PORT = 9094  # Flower's default; each device takes the next, so that many fit on one machine


@dataclass(frozen=True)
class Server:
    """Where devices find the server."""

    hosts: tuple[str, ...]
    """Names and addresses; devices use the first, the certificate is valid for all."""
    port: int

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not (
                _address(host) or re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host)
            ):
                raise ConfigError(f"--host {host!r} is neither a name nor an address")

    @property
    def fields(self) -> dict[str, str]:
        """What the templates call it."""
        first = _address(self.hosts[0])
        v6 = first is not None and first.version == 6
        host = f"[{self.hosts[0]}]" if v6 else self.hosts[0]
        # A socket that is bound to :: takes no IPv4 here, not even from this machine.
        bind, local = ("::", "[::1]") if v6 else ("0.0.0.0", "127.0.0.1")
        return {"host": host, "bind": bind, "local": local, "port": str(self.port)}


class _Text(Template):
    delimiter = "@"  # the shell has taken $


def init(folder: Path, knobs: Experiment, server: Server) -> None:
    """Write a deployment of an experiment: whole, or not at all.

    Args:
        folder: must not exist.
        knobs: the experiment; `partition.clients` is how many devices there are.
        server: where devices will find it.

    Raises:
        ConfigError: the folder exists, or the experiment is impossible.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists; choose another folder, or remove it")
    if given := knobs.run.start_from:
        knobs = knobs.replace({"run.start-from": catalogue.absolute(given)})
    if knobs.data.name != DEVICES:
        knobs = knobs.replace({"data.name": catalogue.absolute(knobs.data.name)})
        prepare(knobs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))  # mode 0700
    try:
        _write(making, knobs, server)
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _write(folder: Path, knobs: Experiment, server: Server) -> None:
    clients = knobs.partition.clients
    fields = {**server.fields, "clients": str(clients), "last": str(clients - 1)}
    fields |= _said_of_data(knobs)
    authority, certificate, key = certificates(list(dict.fromkeys((*server.hosts, *_LOCAL))))
    (folder / "server" / "keys").mkdir(parents=True)
    (folder / "server" / "ca.pem").write_bytes(authority)
    (folder / "server" / "server.pem").write_bytes(certificate)
    _write_private(folder / "server" / "server.key", key)
    _fill(folder / "server", "environment.sh", fields)
    for name in (*_SCRIPTS, "README.md"):
        _fill(folder, name, fields)
    (folder / "run.toml").write_text(to_toml(_without_run(knobs)), encoding="utf-8")
    for number in range(clients):
        public = _write_device(folder / f"device-{number}", knobs, number, fields, authority)
        (folder / "server" / "keys" / f"device-{number}.pub").write_bytes(public)


def _write_device(
    folder: Path, knobs: Experiment, number: int, fields: dict[str, str], authority: bytes
) -> bytes:
    """Write what one device needs, and return its public key."""
    private, public = key_pair()
    folder.mkdir(mode=0o700)
    (folder / "ca.pem").write_bytes(authority)
    _write_private(folder / "device.key", private)
    (folder / "requirements.txt").write_text(requirements(knobs), encoding="utf-8")
    own = {"number": str(number), "own_port": str(_OWN_PORT + number)}
    (folder / "data").mkdir()
    if knobs.data.name != DEVICES:
        write_shard(folder / "data", number, knobs)
    for name in ("start.sh", "preflight.py", "fednf.service"):
        _fill(folder, name, fields | own)
    return public


def requirements(knobs: Experiment) -> str:
    """Return what a device installs: fednf's base requirements, at the versions in use here.

    A device with files of its own also gets what reads pictures and parquet, the extra `data`.

    Raises:
        ConfigError: one of them is not installed here, so its version is unknown.
    """
    extra = "data" if knobs.data.name == DEVICES else ""
    return "".join(_pinned(name) for name in needed(extra))


def _pinned(name: str) -> str:
    try:
        return f"{name}=={metadata.version(name).partition('+')[0]}\n"
    except metadata.PackageNotFoundError:
        raise ConfigError(
            f"{name}, which devices install at the version in use here, is not installed; "
            "install fednf with its extra [data]"
        ) from None


def _said_of_data(knobs: Experiment) -> dict[str, str]:
    """Return what a device's data are, and what to do where there are none."""
    if knobs.data.name == DEVICES:
        own = "put this device's own files there, see docs/guide/devices.md"
        return {"data": f"It is empty: {own}.", "fill": own}
    return {
        "data": f"It was dealt from `{knobs.data.name}`.",
        "fill": "copy the device's folder again",
    }


def _without_run(knobs: Experiment) -> dict:
    """Return all knobs but those that `run.sh` sets."""
    own = ("run.dir", "run.resume", "devices.keys")
    return {key: value for key, value in knobs.to_flat().items() if key not in own}


def _fill(folder: Path, name: str, fields: dict[str, str]) -> None:
    text = _Text((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(fields)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if text.startswith("#!") else 0o644)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, not even while it is written."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
