"""What was simulated is what is deployed: a SuperLink and devices on loopback, with TLS and keys.

All of it dies with the test, see `tests/deployment.py`.
"""

import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from experiments.deploy.credentials import key_pair
from fl.config import Experiment
from fl.data import fashion_mnist_small
from fl.server.journal import Journal
from fl.simulation import run
from tests.deployment import Site

ROOT = Path(__file__).parents[3]
DEVICES = 4
FLAT = {
    "network.depth": 3,
    "network.width": 4,
    "partition.kind": "dirichlet",
    "partition.clients": DEVICES,
    "sampling.clients": DEVICES,
    "client.batch-size": 32,
    "rounds": 3,
    "engine": "sequential",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Make a deployment; flat keys change its experiment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fashion_mnist_small.fill_cache()  # for the server, as every fednf command does
    made = []

    def make(flat=None) -> Site:
        made.append(Site(tmp_path / f"site-{len(made)}", Experiment.from_flat(FLAT | (flat or {}))))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_devices_end_with_the_simulation_s_model(site, tmp_path):
    kept = {"partition.held-out": 0.2, "state.local": "activations", "strategy.kind": "scaffold"}
    here = site({**kept, "recipe": "salunet", "state.scalars": "log"})
    inline = run(here.knobs, Journal(tmp_path / "inline"))
    here.begin()
    here.check()
    here.start("run.sh")
    there = here.result()
    assert there["model_sha256"] == inline["model_sha256"]
    assert there["final_accuracy"] == inline["final_accuracy"]
    assert there["refused"] == 0
    figures = ("partition", "held", "examples", "steps", "loss", "update_norm", "personal_correct")
    ours, theirs = Journal(tmp_path / "inline").clients(), Journal(here.folder / "run").clients()
    assert [[c[f] for f in figures] for c in ours] == [[c[f] for f in figures] for c in theirs]


def test_strangers_are_refused(site):
    """A device whose key nobody registered; one that has another server's certificate; a second

    device with the key of one that is in; one in plain text; an operator in plain text.
    """
    here, elsewhere = site(), site()
    here.superlink()
    here.register()
    here.device(0)

    def ends_with(name, reason):
        process = here.start(name, **here.nothing_else())
        assert process.wait(60) == 1
        assert reason in here.log(name).read_text()

    (here.folder / "device-1" / "device.key").write_bytes(key_pair()[0])
    ends_with("device-1", "Failed to activate SuperNode")
    shutil.copy(elsewhere.folder / "server" / "ca.pem", here.folder / "device-2")
    ends_with("device-2", "is not the server that ca.pem is of")
    shutil.copytree(here.folder / "device-0", here.folder / "twin")
    ends_with("twin", "Failed to activate SuperNode")
    start = here.folder / "device-3" / "start.sh"
    tls = '--root-certificates "$here/ca.pem" --auth-supernode-private-key "$here/device.key"'
    start.write_text(start.read_text().replace(tls, "--insecure --max-retries 2"))
    process = here.start("device-3", **here.nothing_else())
    assert process.wait(60) != 0
    assert "SuperNode ID" not in here.log("device-3").read_text()
    config = here.folder / "server" / "environment.sh"
    config.write_text(config.read_text().replace('root-certificates = "', 'insecure = true # "'))
    done = here.start("run.sh")
    assert done.wait(60) == 1
    assert "Connection to the SuperLink is unavailable" in here.log("run.sh").read_text()


def test_a_device_that_is_killed_costs_itself_and_comes_back(site):
    here = site(
        {"partition.clients": 2, "sampling.clients": 2, "rounds": 30, "devices.reply": 90.0}
    )
    here.begin()
    here.start("run.sh")
    here.wait_until(lambda: len(here.rounds()) > 1, 240)
    asked = here.log("device-1").read_text().count("Receiving: train message")

    def asked_again():
        return here.log("device-1").read_text().count("Receiving: train message") > asked

    here.wait_until(asked_again, 120)
    here.kill("device-1")
    broken = here.wait_until(lambda: [line for line in here.rounds() if line["refused"]], 150)[0]
    assert (broken["asked"], broken["replied"]) == (2, 1)
    assert broken["seconds"] < 90 + 30
    (refusal,) = broken["refused"]
    assert refusal["partition"] == 1
    assert "Unavailable" in refusal["reason"] or "no reply within 90 s" in refusal["reason"]
    here.wait_until(lambda: here.rounds()[-1]["round"] > broken["round"], 120)  # without it
    process = here.start("device-1", **here.nothing_else())
    while "SuperNode ID" not in here.log("device-1").read_text():
        if process.poll() is not None:  # as systemd does: it is refused until it is known as gone
            process = here.start("device-1", **here.nothing_else())
        time.sleep(1)
    back = here.rounds()[-1]["round"]
    here.wait_until(lambda: any(r["replied"] == 2 for r in here.rounds()[back + 1 :]), 180)


def test_a_server_that_is_killed_goes_on_where_it_was(site, tmp_path):
    here = site({"partition.clients": 2, "sampling.clients": 2})
    inline = run(here.knobs, Journal(tmp_path / "inline"))
    here.begin()
    here.start("run.sh")
    here.wait_until(lambda: len(here.rounds()) > 1, 240)
    here.kill("server")
    devices = [process for process in here.started if process.poll() is None]
    assert not Journal(here.folder / "run").result()
    here.superlink()
    here.start("run.sh")
    assert here.result()["model_sha256"] == inline["model_sha256"]
    assert here.result()["refused"] == 0
    assert [process.poll() for process in devices].count(None) >= 2, "devices were started again"


BARE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
import fl.client.app
assert fl.client.app.__file__.startswith(sys.argv[1])
print(*(name for name in sys.argv[2:] if importlib.util.find_spec(name)))
"""


def test_a_device_needs_what_is_in_its_requirements_and_no_more(site, tmp_path):
    """Without fednf, Ray, plots and readers of pictures; the code comes in the bundle."""
    from flwr.cli.build import build_fab_from_disk

    device = site().folder / "device-0"
    python = device / ".venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["-c", ROOT / "constraints.txt", "-r", device / "requirements.txt"]
    subprocess.run([*install, *wanted], check=True, timeout=900)
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as bundle:
        bundle.extractall(tmp_path / "bundle")
    heavy = ["ray", "matplotlib", "PIL", "pyarrow", "pandas", "fednf", "experiments"]
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
    words = [python, "-c", BARE, tmp_path / "bundle", *heavy]
    said = subprocess.check_output(words, text=True, env=environment, cwd=tmp_path)
    assert said.split() == []
    shutil.rmtree(python.parents[1])  # more than a gigabyte
