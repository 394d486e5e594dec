"""Runs of one short round with faults, each done once however many tests look at it."""

from dataclasses import dataclass

import numpy as np
import pytest

from fl.config import Experiment
from fl.server.journal import MODEL, Journal
from fl.simulation import run
from tests.conftest import TINY

SHORT = {
    **TINY,
    "engine": "sequential",
    "recipe": "batchnorm",
    "network.width": 2,
    "partition.kind": "iid",
    "partition.clients": 6,
    "sampling.clients": 4,
    "client.batch-size": 8,
    "rounds": 1,
}
FILE = """
import numpy as np
import fl


def few(turned: bool = False):
    rng = np.random.default_rng(1)
    labels = np.arange(160) % 3
    images = rng.normal(size=(160, 1, 12, 12)) + labels[:, None, None, None]
    train = 2 - labels[:120] if turned else labels[:120]
    sets = (images[:120], train), (images[120:], labels[120:])
    return fl.Dataset(*sets, name="few", classes=3, layout="NCHW")
"""


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    model: dict[str, np.ndarray]
    result: dict
    lines: list[dict]
    accounts: list[dict]


@pytest.fixture(scope="session")
def few(tmp_path_factory) -> str:
    """Name a data set of 120 examples to train on, in three classes."""
    file = tmp_path_factory.mktemp("data") / "few.py"
    file.write_text(FILE)
    return f"{file}:few"


@pytest.fixture(scope="module")
def ended(tmp_path_factory, few):
    """Run an experiment that differs from a short one in some knobs, and return what came out."""
    done: dict[tuple, Ended] = {}

    def go(flat: dict | None = None) -> Ended:
        key = tuple(sorted((flat or {}).items()))
        if key not in done:
            journal = Journal(tmp_path_factory.mktemp("run"))
            result = run(Experiment.from_flat({**SHORT, "data.name": few, **(flat or {})}), journal)
            model = {n: a.astype(np.float64) for n, a in journal.network(MODEL)[0].items()}
            done[key] = Ended(model, result, journal.rounds(), journal.clients())
        return done[key]

    return go
