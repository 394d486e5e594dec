"""Check a running federation against its plan, device by device."""

import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.deploy.app import write_app
from experiments.deploy.folder import CONNECTION
from fl.config import DEVICES, Experiment
from fl.config.parsing import ConfigError, read_toml, to_toml
from fl.data import Dataset, catalogue, load
from fl.messages import bound_keys
from fl.messages.claims import of_other_data
from fl.server.nodes import ANSWER_SECONDS
from fl.server.ping import FILE

CLOCK_SECONDS = 5.0
"""A clock that is off by more seconds is reported. Flower refuses one that is too fast."""

_Form = tuple[tuple[int, ...], int]  # an image's shape, and how many classes there are

_WAIT = ANSWER_SECONDS + 120  # what it takes to begin, and to look for the last answers
_PING = "fl.server.ping:app"


@dataclass
class Device:
    """The state of one device."""

    number: int
    node: str = ""
    status: str = "not registered"
    told: dict = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check(folder: Path) -> tuple[Dataset | None, list[Device]]:
    """Ask a running federation; return the server's data, and all devices with what is wrong.

    Raises:
        ConfigError: that is no deployment's folder, or the server's data can't be read.
        ConnectionError: the SuperLink does not answer, or not in time.
    """
    if not (folder / "run.toml").is_file() or not (folder / "server").is_dir():
        raise ConfigError(f"{folder} was not made by fednf deploy init")
    knobs = Experiment.from_flat(read_toml(folder / "run.toml"))
    if (name := knobs.data.name) != catalogue.absolute(name):
        raise ConfigError(
            f"{folder / 'run.toml'}: data.name={name} is looked for in another folder when the "
            f"server runs; write {catalogue.absolute(name)}, or deploy anew"
        )
    data = load(knobs) if name != DEVICES else None
    flower = Flower(folder.absolute())
    devices = [Device(number) for number in range(knobs.partition.clients)]
    status = flower.status()
    for device in devices:
        device.node = flower.node(device.number)
        device.status = status.get(device.node, device.status)
    said = flower.ping(knobs) if "online" in status.values() else {"nodes": {}}
    for device in devices:
        device.told = said["nodes"].get(device.node, {})
    expected = _expected(devices, data)
    for device in devices:
        device.problems = list(_problems(device, said, expected))
        dealt_from = device.told.get("dealt_from", "")
        if data and (other := of_other_data(dealt_from, data.fingerprint, name)):
            device.problems.append(other)
    return data, devices


def _problems(device: Device, said: dict, expected: _Form | None) -> Iterator[str]:
    """Yield what is wrong with a device, a line each."""
    told = device.told
    if device.status == "not registered":
        yield "not registered: ./register.sh"
        return
    if device.status != "online":
        seen = "was connected" if device.status == "offline" else "has never been connected"
        yield f"it {seen} and is not now: look at its log"
        return
    if "problem" in told or not told:
        problem = told.get("problem", "it came after the question; check again")
        yield f"{problem}: it is busy or silent" if problem == "no answer" else problem
        return
    server = said["server"]
    if told["code"] != server["code"]:
        yield f"its code is {told['code'][:8]}, the server's {server['code'][:8]}"
    if told["partition"] != device.number:
        yield f"it says that it is device {told['partition']}: it has that one's folder"
    for package in sorted(set(server["packages"]) - set(told["packages"])):
        own = next((p for p in told["packages"] if _name(p) == _name(package)), "none")
        if not package.startswith("ray "):
            yield f"it has {own}, the server {package}"
    if abs(off := told["clock_off"]) > CLOCK_SECONDS:
        yield f"its clock is {abs(off):.0f} s {'fast' if off > 0 else 'slow'}: set its time"
    if told["images"] == 0:
        yield "it has no images to train on"
    if (found := _form(told)) != expected:
        yield f"its images are {found}, expected {expected}"


def _name(package: str) -> str:
    return package.partition(" ")[0]


def _form(told: dict) -> _Form:
    return tuple(told["shape"]), told["classes"]


def _expected(devices: list[Device], data: Dataset | None) -> _Form | None:
    """Return the form of the run's images: the data set's, or what most devices hold."""
    if data:
        return data.form.shape, data.form.classes
    forms = Counter(_form(device.told) for device in devices if "shape" in device.told)
    return forms.most_common(1)[0][0] if forms else None  # of equally many the first device's


class Flower:
    """Flower's command line, as a deployment's operator uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder / "server" / "flower"
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }

    def node(self, number: int) -> str:
        """Return the id that a device's key was given when it was registered; empty before."""
        found = bound_keys.node_of(bound_keys.file_of(self.folder / "server" / "keys", number))
        return "" if found is None else str(found)

    def status(self) -> dict[str, str]:
        """Return every node's status: registered, online, offline or unregistered."""
        nodes = self._ask("supernode", "list", CONNECTION)["nodes"]
        return {str(node["node-id"]): node["status"] for node in nodes}

    def ping(self, knobs: Experiment) -> dict:
        """Submit a run that trains nobody, and return what it has written down."""
        with tempfile.TemporaryDirectory(prefix="fednf-check-") as name:
            here = Path(name)
            write_app(here / "app", _PING)
            settings = to_toml({**knobs.to_flat(), "run.dir": str(here)})
            (here / "run.toml").write_text(settings, encoding="utf-8")
            config = str(here / "run.toml")
            run = self._ask("run", str(here / "app"), CONNECTION, "--run-config", config)
            end = time.monotonic() + _WAIT
            while not (here / FILE).is_file():
                if time.monotonic() > end:
                    self._ask("stop", str(run["run-id"]), CONNECTION)
                    raise ConnectionError(
                        f"the ping took longer than {_WAIT:.0f} s; look at the SuperLink's log"
                    )
                time.sleep(0.5)
            return json.loads((here / FILE).read_text(encoding="utf-8"))

    def _ask(self, *words: str) -> dict:
        command = ["flwr", *words, "--format", "json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {"error-message": f"{done.stdout}{done.stderr}"}
        if not answer.get("success"):
            raise ConnectionError(
                f"flwr {words[0]}: {answer.get('error-message', answer)}{self._hint()}"
            )
        return answer

    def _hint(self) -> str:
        """Say what to do where the server was never started from this folder."""
        config = self.folder / "server" / "flower" / "config.toml"  # flwr makes one without us
        if config.is_file() and CONNECTION in config.read_text(encoding="utf-8"):
            return ""
        return f"; the server was not started here yet: {self.folder / 'superlink.sh'}"
