"""Faults by schedule on devices: each is what it is in simulation, to the byte.

One federation on loopback plays an experiment a kind of fault, one after another. With
FEDNF_FULL=1 these are all kinds.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from fl.config import Experiment
from fl.data import fashion_mnist_small
from fl.server.journal import Journal
from fl.simulation import run
from tests.conftest import TINY
from tests.deployment import Site
from tests.fl.client.test_fault_table import HARMLESS, KINDS, LET_IN, REFUSED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]

FLAT = {
    **TINY,
    "engine": "sequential",
    "recipe": "batchnorm",
    "partition.kind": "iid",
    "partition.clients": 3,
    "sampling.clients": 3,
    "rounds": 1,
    "faults.clients": "1",
    "faults.seconds": 0.5,
    "devices.reply": 90.0,
    "round.deadline": 60.0,
}
KIND = re.compile(r'faults\.kind = "\w+"')
LAST = "hang"
"""A device that hangs answers no later request, so it comes last."""
TRIED = (
    (*(kind for kind in KINDS if kind != LAST), LAST)
    if os.environ.get("FEDNF_FULL")
    else ("duplicate", "nan")
)
ON_A_DEVICE = {
    **REFUSED,
    "killed": "WorkerDied: faults.kind=killed",
    "hang": "no reply within 90 s",
}


def with_fault(kind: str) -> Experiment:
    """Return the experiment in which one of the three clients is faulty."""
    return Experiment.from_flat({**FLAT, "faults.kind": kind})


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fashion_mnist_small.fill_cache()  # for the server, as every fednf command does
    here = Site(tmp_path / "site", with_fault(TRIED[0]))
    yield here
    here.end()


def test_a_fault_on_a_device_is_the_simulation_s(site, tmp_path):
    site.begin()
    for kind in TRIED:
        settings = site.folder / "run.toml"
        text = settings.read_text(encoding="utf-8")
        settings.write_text(KIND.sub(f'faults.kind = "{kind}"', text), encoding="utf-8")
        shutil.rmtree(site.folder / "run", ignore_errors=True)
        site.start("run.sh").wait(300)
        there, (line,) = site.result(1), site.rounds()[1:]
        refused = [(one["partition"], one["reason"]) for one in line["refused"]]
        assert [client for client, _ in refused] == ([] if kind in (*LET_IN, "late") else [1])
        reason = ON_A_DEVICE.get(kind, HARMLESS.get(kind, ""))
        assert all(re.search(reason, why) for _, why in refused), (kind, refused)
        same = "lost" if kind in REFUSED else kind
        simulated = run(with_fault(same), Journal(tmp_path / f"simulated-{kind}"))
        assert there["model_sha256"] == simulated["model_sha256"], kind
