"""What every test may ask for: one thread, no user's cache, and an experiment of seconds."""

import gc
import signal
import warnings

import pytest
import torch

from fl.config import Experiment
from fl.config.parsing import Value


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """Keep tests away from the user's folders, and torch to one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
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


@pytest.fixture
def tiny():
    """Make experiments that take a fraction of a second; flat keys change them."""

    def make(flat: dict[str, Value] | None = None) -> Experiment:
        return Experiment.from_flat({**TINY, **(flat or {})})

    return make
