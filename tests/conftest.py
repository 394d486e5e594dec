"""What every test may ask for: one thread, no user's cache, and an experiment of seconds."""

import gc
import json
import os
import signal
import warnings
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fl.config import Experiment
from fl.config.parsing import Value

settings.register_profile("unhurried", deadline=None)  # a busy machine is no fault of a test's
settings.load_profile("unhurried")

WHOLE_RUNS = ("experiments", "fl/server", "fl/simulation", "fl/tasks", "strategies", "stranger")
"""Rooms whose tests play whole runs, in which checks of types and shapes take half of the time."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Check types and shapes in every call, but in whole runs only where a test asks for it.

    Such a test has the marker `checked`. With FEDNF_FULL=1 everything is checked.
    """
    room = item.path.relative_to(Path(__file__).parent).as_posix()
    free = room.startswith(WHOLE_RUNS) and item.get_closest_marker("checked") is None
    off = free and "FEDNF_FULL" not in os.environ
    jaxtyping.config.update("jaxtyping_disable", off)


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory):
    """Name the cache of all processes that share the tests, so that operators are built once."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory, user_cache):
    """Keep tests away from the user's folders, and torch to one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Let children hear SIGINT, even where whoever started the tests ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rays_leftovers():
    """Let Ray leave files open and processes running, and find them before another test does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


TINY: dict[str, Value] = {
    "device": "cpu",
    "network.depth": 3,
    "network.width": 4,
    "partition.clients": 5,
    "sampling.clients": 2,
    "client.batch-size": 32,
    "rounds": 2,
}

ENGINES: dict[str, dict[str, Value]] = {
    "sequential": {"engine": "sequential"},
    "vectorized": {"engine": "vectorized", "vectorized.lanes": 2, "vectorized.level": "eager"},
}
"""One client after another, and lanes that need no compiler."""


@pytest.fixture
def tiny():
    """Make experiments that take a fraction of a second; flat keys change them."""

    def make(flat: dict[str, Value] | None = None) -> Experiment:
        return Experiment.from_flat({**TINY, **(flat or {})})

    return make


@pytest.fixture
def make_unchecked():
    """Take the checksums out of a run's folder, as versions wrote it that had none."""

    def bare(text: str) -> dict:
        said = json.loads(text)
        return {key: said[key] for key in said if key not in ("file_sha256", "run", "covers")}

    def make(folder: Path) -> Path:
        for path in (folder / "experiment.json", folder / "result.json"):
            if path.exists():
                path.write_text(json.dumps(bare(path.read_text()), indent=1) + "\n")
        for path in folder.glob("*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            bared = [{key: line[key] for key in line if key != "link"} for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in bared))
        for path in folder.rglob("*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                told = file.metadata()
            kept = {key: told[key] for key in told if key in ("fednf", "checkpoint", "records")}
            for key in kept.keys() - {"records"}:
                kept[key] = json.dumps(bare(kept[key]))
            save_file(load_file(path), path, metadata=kept)
        return folder

    return make
