"""Flower's own command line, for tests: a home of its own, and an end to what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fl
from fl.server.journal import Journal

ROOT = Path(fl.__file__).parents[1]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def flower_home(home: Path) -> Iterator[dict[str, str]]:
    """Give Flower's environment, and end the SuperLink that `flwr run` leaves behind."""
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_port(),
        "FLWR_LOCAL_CONTROL_API_PORT": free_port(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    yield environment
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"FLWR_HOME={home}".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def flwr_run(config: Path, nodes: int, workers: int, environment: dict[str, str]) -> None:
    """Run our app with a run config, on as many nodes, from an empty folder beside the file."""
    empty = config.parent / "empty"  # docs/guide/flower.md says why it is empty
    empty.mkdir()
    words = ["flwr", "run", str(ROOT), "--stream", "--run-config", str(config)]
    cpus = f"client-resources-num-cpus=1 init-args-num-cpus={workers}"
    words += ["--federation-config", f"num-supernodes={nodes} {cpus}"]
    done = subprocess.run(
        words, cwd=empty, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(journal: Journal, seconds: float) -> dict:
    end = time.monotonic() + seconds
    while (result := journal.result()) is None:
        assert time.monotonic() < end, "flwr run has not finished"
        time.sleep(0.5)
    return result
