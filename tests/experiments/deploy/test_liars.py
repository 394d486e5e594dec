"""A live federation on loopback in which two devices lie: they are refused, and the others go on.

Device 1 tells another lie in each round. A third one, whose key is registered for no partition of
the experiment, says that it is device 0, and is there before that one. Everything that the
operator's terminal gets is kept, from a real pseudo-terminal.
"""

import json
import os
import pty
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from experiments.deploy.app import write_app
from experiments.deploy.credentials import key_pair
from fl.config import Experiment
from fl.data import fashion_mnist_small
from fl.server.journal import Journal
from tests.deployment import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]

APP = r"""
import math

import numpy as np
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from fl.client import task
from fl.messages import records

app = ClientApp()
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def says(**figures):
    def lie(reply, message):
        reply.content["metrics"].update({k.replace("_", "-"): v for k, v in figures.items()})
        return reply
    return lie


def fails(text):
    return lambda reply, message: Message(Error(records.BUG, text), reply_to=message)


def negative(reply, message):
    arrays = records.unpack_arrays(reply.content["arrays"])
    name = next(name for name in arrays if name.endswith("running_var"))
    spoiled = {**arrays, name: np.full_like(arrays[name], -5)}
    reply.content["arrays"] = records.pack_arrays(spoiled)
    return reply


def many(reply, message):
    reply.content["metrics"].update({f"{NASTY}{n}": 1.0 for n in range(10**5)})
    return reply


LIES = [
    says(num_examples=10**18),
    fails(NASTY + "y" * 10**7),
    negative,
    many,
    says(examples=10**9),
    says(steps=0),
    says(batch_size=1),
    says(epochs=9),
    says(held_out=10**6, personal_correct=10**6),
    says(seconds=-1.0),
    says(seconds=math.inf),
    says(loss=math.nan),
    says(update_norm=-1.0),
]


@app.train()
def train(message, context):
    reply = task.answer([message], [context])[0]
    if context.node_config["partition-id"] != 1:
        return reply
    return LIES[records.read_round(message.content) - 1](reply, message)


@app.query("who_are_you")
def who_are_you(message, context):
    reply = task.answer([message], [context])[0]
    said = reply.content["config"]
    if context.node_config["partition-id"] == 1:
        said["packages"] = [*said["packages"], NASTY + "x" * 10**6]
    return reply
"""
REASONS = [
    "num-examples=1000000000000000000, but it said that it holds",
    "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202eyyy",
    "running_var holds -5, expected 0 or more",
    "are missing or unknown",
    "examples=1000000000, expected",
    "steps=0, expected",
    "batch-size=1, expected 32",
    "epochs=9, expected 1",
    "held-out=1000000, but it said that it holds",
    "seconds=-1.0, expected a finite number",
    "seconds=inf, expected a finite number",
    "loss=nan, expected a finite number",
    "update-norm=-1.0, expected a finite number",
]
ROUNDS = len(REASONS) if os.environ.get("FEDNF_FULL") == "1" else 2
RAW = (b"\x1b]0;", b"\x07", b"\x1b[2J", b"\x9b31m", b"\xe2\x80\xae")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fashion_mnist_small.fill_cache()  # for the server, as every fednf command does
    flat = {"network.depth": 3, "network.width": 4, "recipe": "batchnorm", "rounds": ROUNDS}
    flat |= {"partition.kind": "iid", "partition.clients": 2, "sampling.clients": 2}
    flat |= {"partition.held-out": 0.1, "client.batch-size": 32, "engine": "sequential"}
    flat |= {"devices.wait": 600.0}
    here = Site(tmp_path / "site", Experiment.from_flat(flat))
    yield here
    here.end()


def with_liars(here: Site) -> None:
    """Let the deployment run our app with another client."""
    folder = here.folder / "liars"
    write_app(folder)
    (folder / "liars.py").write_text(APP, encoding="utf-8")
    settings = folder / "pyproject.toml"
    ours = settings.read_text(encoding="utf-8")
    assert "fl.client.app:app" in ours
    settings.write_text(ours.replace("fl.client.app:app", "liars:app"), encoding="utf-8")
    script = here.folder / "run.sh"
    text = script.read_text(encoding="utf-8")
    made = "python -m experiments.deploy.app app"
    assert made in text
    script.write_text(text.replace(made, 'cp -r "$here/liars" app'), encoding="utf-8")


def intrude(here: Site) -> None:
    """Register another key, and start a device with it that says it is device 0."""
    shutil.copytree(here.folder / "device-0", here.folder / "device-2")
    private, public = key_pair()
    (here.folder / "device-2" / "device.key").write_bytes(private)
    (here.folder / "server" / "keys" / "device-2.pub").write_bytes(public)
    words = [here.folder / "register.sh", "2"]
    subprocess.run(words, env=here.environment, check=True, timeout=120)
    here.device(2)


def run_in_terminal(here: Site, heard: bytearray) -> None:
    """Start `run.sh` as an operator does, with all that reaches the terminal kept."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(
        [here.folder / "run.sh"], env=here.environment, start_new_session=True, **streams
    )
    os.close(theirs)
    here.started.append(process)

    def listen() -> None:
        try:
            while part := os.read(ours, 65536):
                heard.extend(part)
                here.log("run.sh").write_bytes(heard)  # which `Site` shows where it goes wrong
        except OSError:
            return

    threading.Thread(target=listen, daemon=True).start()


def test_each_liar_is_refused_while_the_others_go_on_and_no_raw_escape_reaches_a_terminal(site):
    site.superlink()
    site.register()
    intrude(site)
    for number in (1, 0):
        site.device(number)
    with_liars(site)
    heard = bytearray()
    run_in_terminal(site, heard)
    result = site.result(600 + 60 * ROUNDS)
    journal = Journal(site.folder / "run")
    assert result["rounds"] == ROUNDS
    for number, line in enumerate(journal.rounds()[1:], 1):
        (refused,) = line["refused"]
        assert refused["partition"] == 1
        assert REASONS[number - 1] in refused["reason"]
        assert len(refused["reason"]) < 1200
        reason = "it says that it is partition 0, and its key is for none"
        assert [one["partition"] for one in line["left_out"]] == [None]
        assert line["left_out"][0]["reason"].endswith(reason)
        counted = [c["partition"] for c in journal.clients() if c["round"] == number]
        assert counted == [0]
    text = json.dumps(journal.header()["devices"])
    assert "\\\\x1b]0;owned" in text
    for file in (site.folder / "run").glob("*.json*"):
        assert not [raw for raw in RAW if raw in file.read_bytes()]
        assert file.stat().st_size < 100_000
    site.wait_until(lambda: b"its key is for none" in heard, 30)
    assert not [raw for raw in RAW if raw in heard]
