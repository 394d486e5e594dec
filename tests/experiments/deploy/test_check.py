"""What `fednf deploy check` says of devices, a line for each thing that is wrong."""

import io
import json
import os
import zipfile

import numpy as np
import pytest

from experiments.deploy import check
from experiments.deploy.app import write_app
from fl.data import shards
from tests.experiments.answers import refused

GOOD = {
    "code": "c0de" * 16,
    "images": 100,
    "held_out": 0,
    "shape": [1, 28, 28],
    "classes": 10,
    "source": "shard",
    "clock_off": 0,
    "packages": ["python 3.11.7", "torch 2.13.0"],
}
SERVER = {"code": "c0de" * 16, "packages": ["python 3.11.7", "torch 2.13.0", "ray 2.55.1"]}


@pytest.fixture
def asked(deployed, fednf, monkeypatch):
    """Check a federation of two devices, of which the second answers or is as it is given."""

    def ask(status="online", **second):
        deployed(2)
        told = {"100": {**GOOD, "partition": 0}, "101": second or {**GOOD, "partition": 1}}
        monkeypatch.setattr(check.Flower, "node", lambda self, number: f"10{number}")
        monkeypatch.setattr(check.Flower, "status", lambda self: {"100": "online", "101": status})
        said = {"server": SERVER, "nodes": told}
        monkeypatch.setattr(check.Flower, "ping", lambda self, knobs: said)
        return fednf("deploy", "check", "site")

    return ask


def test_all_is_well(asked):
    done = asked()
    assert done.status == 0
    assert done.lines[-1] == "2 of 2 devices are as they should be"
    assert done.lines[0].startswith("the server's data: grey images of 28 × 28, uint8")
    assert len(done.lines) == 1 + 1 + 2 + 1


WRONG = {
    "it runs other code": ({"code": "0ther" * 12}, "its code is 0ther0th, the server's c0dec0de"),
    "another's folder": ({"partition": 0}, "it says that it is device 0"),
    "older torch": (
        {"packages": ["python 3.11.7", "torch 2.8.0"]},
        "it has torch 2.8.0, the server torch 2.13.0",
    ),
    "a nameless package": (
        {"packages": ["", "python 3.11.7"]},
        "it has none, the server torch 2.13.0",
    ),
    "fast": ({"clock_off": 90.0}, "its clock is 90 s fast: set its time"),
    "slow": ({"clock_off": -30.0}, "its clock is 30 s slow: set its time"),
    "empty": ({"images": 0}, "it has no images to train on"),
    "other images": ({"shape": [3, 32, 32]}, "its images are ((3, 32, 32), 10), expected"),
    "other data": (
        {"dealt_from": "ab" * 32},
        "its shard was dealt from data with the SHA-256 abababababab, and data.name=",
    ),
    "more classes": ({"classes": 12}, "its images are ((1, 28, 28), 12), expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_line(asked, case):
    found, words = WRONG[case]
    done = asked(**{**GOOD, "partition": 1, **found})
    assert done.status == 1
    assert [words in line for line in done.lines if line.startswith("device 1:")] == [True]
    assert done.lines[-1] == "1 of 2 devices are as they should be"


def odd(forms):
    """Return what is said of the forms of devices that bring images of their own."""
    answers = [{} if f is None else {**GOOD, **f, "partition": n} for n, f in enumerate(forms)]
    devices = [check.Device(n, status="online", told=told) for n, told in enumerate(answers)]
    expected = check._expected(devices, None)
    said = {"server": {**SERVER, "packages": []}}
    return {d.number: list(check._problems(d, said, expected)) for d in devices}


def test_own_images_are_to_be_as_most_devices_have_them():
    colour, more = {"shape": [3, 32, 32]}, {"classes": 12}
    assert odd([{}, {}, {}]) == {0: [], 1: [], 2: []}
    assert odd([colour, {}, {}]) == {
        0: ["its images are ((3, 32, 32), 10), expected ((1, 28, 28), 10)"],
        1: [],
        2: [],
    }
    assert odd([{}, more])[1] == ["its images are ((1, 28, 28), 12), expected ((1, 28, 28), 10)"]
    assert odd([None, {}]) == {0: ["it came after the question; check again"], 1: []}
    assert list(odd([None])) == [0]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("registered", "it has never been connected and is not now"),
        ("offline", "it was connected and is not now"),
    ],
)
def test_a_device_that_is_not_there_is_named(asked, status, words):
    done = asked(status=status)
    assert done.status == 1
    assert f"device 1: {words}" in done.out


def test_a_device_s_own_reason_is_passed_on(asked):
    done = asked(problem="ConfigError: shard.npz is damaged")
    assert "device 1: ConfigError: shard.npz is damaged" in done.out


def test_a_silent_device_may_be_busy(asked):
    assert "device 1: no answer: it is busy or silent" in asked(problem="no answer").out


def test_the_devices_are_given_their_time_to_answer():
    assert check._WAIT > check.ANSWER_SECONDS + 60


@pytest.mark.parametrize("source", ["[/red]", "[bold]own[/bold]"])
def test_what_a_device_says_is_no_markup(asked, source):
    done = asked(**{**GOOD, "partition": 1, "source": source})
    assert done.status == 0, done.err
    assert source in done.out


def test_a_folder_that_is_no_deployment_is_refused(fednf, tmp_path):
    (tmp_path / "here").mkdir()
    assert "here was not made by fednf deploy init" in refused(fednf("deploy", "check", "here"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"success": False, "error-message": "it is\naway"}, "flwr supernode: it is away"),
        (None, "flwr supernode: broken"),
    ],
)
def test_a_server_that_does_not_answer_is_a_line(deployed, fednf, monkeypatch, answer, words):
    folder = deployed(1)
    flwr = folder.parent / "bin" / "flwr"
    flwr.parent.mkdir()
    said = json.dumps(answer) if answer else "broken"
    flwr.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    flwr.chmod(0o755)
    monkeypatch.setenv("PATH", f"{flwr.parent}{os.pathsep}{os.environ['PATH']}")
    done = fednf("deploy", "check", "site")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert words in done.err
    assert f"not started here yet: {folder / 'superlink.sh'}" in done.err
    (folder / "server" / "flower").mkdir()
    config = folder / "server" / "flower" / "config.toml"
    config.write_text("[superlink]\n")  # as flwr itself makes it
    assert "not started" in fednf("deploy", "check", "site").err
    config.write_text('[superlink]\ndefault = "fednf"\n')  # as superlink.sh does
    assert "not started" not in fednf("deploy", "check", "site").err


def test_the_roll_call_goes_out_with_the_code_of_a_run(tmp_path):
    """Another server, the same client: the bundle differs from a run's in its pyproject only."""
    from flwr.cli.build import build_fab_from_disk

    def contents(bundle: bytes) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    write_app(tmp_path / "ping", "fl.server.ping:app")
    theirs = contents(build_fab_from_disk(tmp_path / "ping"))
    write_app(tmp_path / "run")
    ours = contents(build_fab_from_disk(tmp_path / "run"))
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert {name for name in differing if not name.startswith(".info")} == {"pyproject.toml"}
    assert b'"fl.server.ping:app"' in theirs["pyproject.toml"]


def written(path, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, (60, 28, 28), np.uint8)
    y = np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return path


def asked_of(monkeypatch, site):
    """Let two devices answer with what their shards say."""
    told = {}
    for number in range(2):
        mine, _ = shards.read(site / f"device-{number}" / "data")
        of_data = {"dealt_from": mine.dealt_from, "classes": 3, "partition": number}
        told[f"10{number}"] = {**GOOD, **of_data}
    monkeypatch.setattr(check.Flower, "node", lambda self, number: f"10{number}")
    monkeypatch.setattr(check.Flower, "status", lambda self: dict.fromkeys(told, "online"))
    monkeypatch.setattr(check.Flower, "ping", lambda self, knobs: {"server": SERVER, "nodes": told})


def test_data_beside_the_command_are_dealt_moved_changed_and_lost(
    deployed, fednf, tmp_path, monkeypatch
):
    file = written(tmp_path / "mine.npz")
    site = deployed(2, "--set", "data.name=mine.npz")
    run = (site / "run.toml").read_text()
    assert f'"{file}"' in run  # written whole, since the server runs in another folder
    asked_of(monkeypatch, site)
    assert fednf("deploy", "check", "site").status == 0
    elsewhere = file.rename(tmp_path / "elsewhere.npz")
    assert f"{file} does not exist" in refused(fednf("deploy", "check", "site"))
    (site / "run.toml").write_text(run.replace(str(file), str(elsewhere)))
    assert fednf("deploy", "check", "site").status == 0
    written(elsewhere, seed=1)
    done = fednf("deploy", "check", "site")
    assert done.status == 1
    words = "its shard was dealt from data with the SHA-256 "
    assert [line.partition(words)[0] for line in done.lines if words in line] == [
        "device 0: ",
        "device 1: ",
    ]


def test_data_that_are_not_there_are_not_dealt(fednf, tmp_path):
    told = refused(
        fednf("deploy", "init", "site", "--devices", "2", "--set", "data.name=none/mine.npz")
    )
    assert "mine.npz does not exist" in told
    assert not (tmp_path / "site").exists()
