"""The code of docs/guide/own/network.md runs as it stands."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

import fl
from fl.config import Experiment
from fl.server.journal import Journal

PAGE = Path(fl.__file__).parent.parent / "docs" / "guide" / "own" / "network.md"
BLOCKS = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
FILES = dict(BLOCKS)
FAST = {"device": "cpu", "partition.clients": 5, "sampling.clients": 2, "client.batch-size": 50}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the files of the page, whose runs are made fast."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    whole = fl.run
    monkeypatch.setattr(fl, "run", lambda knobs, out: whole({**FAST, **knobs}, out=out))
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def execute(name: str) -> dict:
    names: dict = {}
    exec(compile(FILES[name], name, "exec"), names)
    return names


def test_a_network_as_it_is_and_with_a_recipe(folder):
    names = execute("run.py")
    assert names["result"]["model_sha256"] != names["converted"]["model_sha256"]
    assert len(Journal(folder / "runs" / "net").rounds()) == 4
    header = Journal(folder / "runs" / "net-zc-swish").header()
    assert (header["knobs"]["recipe"], header["auto"]["network.init"]) == ("zc-swish", "he")


def test_a_module_in_one_s_hands(folder):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        execute("convert.py")
    assert said.getvalue().count("SWALU()") == said.getvalue().count(" SALU()") == 2


def test_a_recipe_of_one_s_own(folder):
    execute("compare.py")
    for name in ("cube-net", "cube-pla"):
        model = Journal(folder / "runs" / name).checkpoint().model
        strengths = [value for key, value in model.items() if key.endswith("strength")]
        assert strengths
        assert all(value != 0.1 for value in strengths)


def test_every_command_names_knobs_that_exist(folder, monkeypatch):
    module = sys.modules["fl.config.components.names"]
    monkeypatch.setattr(module.sources, "of_module", lambda place: {place: "1"})
    monkeypatch.setattr(module, "find_spec", lambda place: True)
    commands = re.findall(r"^fednf run (.*)$", PAGE.read_text("utf-8"), re.M)
    assert len(commands) == 3
    for command in commands:
        Experiment.from_flat(dict(re.findall(r"--set (\S+)=(\S+)", command)))
