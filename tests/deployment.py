"""A deployment on this machine, for tests: a SuperLink and devices on loopback, with TLS and keys.

Each device is a process group of its own in a folder that `fednf deploy init` wrote, with its shard
and an empty cache.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import fl
from experiments.deploy.folder import Server, init
from fl.config import Experiment
from fl.server.journal import Journal

ROOT = Path(fl.__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """A deployment on this machine, in a new folder or one that is there, and what was started."""

    def __init__(self, folder: Path, knobs: Experiment) -> None:
        self.folder, self.knobs = folder, knobs
        self.started: list[subprocess.Popen] = []
        if not folder.exists():
            init(folder, knobs, Server(("127.0.0.1",), free_port()))
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, name: str, **more: str) -> subprocess.Popen:
        """Start one of the scripts; what it says goes to NAME.log."""
        script = self.folder / (name if name.endswith(".sh") else f"{name}/start.sh")
        environment = {**self.environment, **more}
        self.log(name).unlink(missing_ok=True)
        with self.log(name).open("xb") as log:
            process = subprocess.Popen([script], env=environment, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def superlink(self) -> subprocess.Popen:
        """Start the server, and wait until it answers."""
        process = self.start("superlink.sh")
        self.wait_for(process, "superlink.sh", "Application startup complete", 120)
        return process

    def device(self, number: int) -> subprocess.Popen:
        """Start a device that has nothing but its folder, and wait until it is in."""
        name = f"device-{number}"
        process = self.start(name, **self.nothing_else())
        self.wait_for(process, name, "SuperNode ID", 120)
        return process

    def nothing_else(self) -> dict[str, str]:
        """Return an environment without a cache, without fednf and with a port of its own."""
        empty = {"XDG_CACHE_HOME": str(self.folder / "empty"), "PYTHONPATH": ""}
        return {**empty, "PORT": str(free_port())}

    def check(self) -> None:
        """Let `fednf deploy check` find nothing wrong."""
        words = [sys.executable, "-m", "experiments", "deploy", "check", self.folder]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def register(self) -> None:
        subprocess.run([self.folder / "register.sh"], env=self.environment, check=True, timeout=120)

    def begin(self) -> None:
        """Start all of it."""
        self.superlink()
        self.register()
        for number in range(self.knobs.partition.clients):
            self.device(number)

    def log(self, name: str) -> Path:
        return self.folder.parent / f"{self.folder.name}-{name}.log"

    def wait_for(self, process, name: str, text: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while text not in self.log(name).read_text():
            assert process.poll() is None, self.log(name).read_text()
            assert time.monotonic() < end, self.log(name).read_text()
            time.sleep(0.2)

    def rounds(self) -> list[dict]:
        """Return the lines of the rounds that are permanent."""
        return Journal(self.folder / "run").rounds()

    def wait_until(self, there, seconds: float):
        """Wait until something is there, and return it."""
        end = time.monotonic() + seconds
        while not (found := there()):
            assert time.monotonic() < end, self.log("run.sh").read_text()
            time.sleep(0.1)
        return found

    def result(self, seconds: float = 600) -> dict:
        """Wait until the run is finished, and return its result."""
        return self.wait_until(Journal(self.folder / "run").result, seconds)

    def kill(self, part: str = "") -> None:
        """Send SIGKILL to a part of it, and all that it started, however it is called."""
        home = f"FLWR_HOME={self.folder / part}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if home in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def end(self) -> None:
        """End whatever was started."""
        self.kill()
        for process in self.started:
            process.wait(60)
