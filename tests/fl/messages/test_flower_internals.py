"""Flower's private names: where they stand, and that they still do what we expect."""

import ast
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

import fl
from fl.messages.flower_internals import (
    NODE_IS_GONE,
    act_as_server,
    bundle,
    number_message,
    restore_message,
)

ROOT = Path(fl.__file__).parent.parent
PUBLIC = {
    "flwr.app",
    "flwr.clientapp",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "flwr.simulation",
}
THE_FILE = ROOT / "fl" / "messages" / "flower_internals.py"


def sources() -> list[Path]:
    rooms = ("fl", "strategies", "partitions", "experiments")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def private_names(code: str) -> list[str]:
    """Return what a file uses of Flower that is not public."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
            found += [x for x in names if x.partition(".")[0] == "flwr" and x not in PUBLIC]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flwr":
            names = {f"{node.module}.{name.name}" for name in node.names}
            if node.module not in PUBLIC and not names <= PUBLIC:
                found.append(node.module)
            found += [f"{node.module}.{x.name}" for x in node.names if x.name.startswith("_")]
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
            found.append("__dict__")
    return found


def test_flower_s_private_names_stand_in_one_file():
    found = {path: names for path in sources() if (names := private_names(path.read_text()))}
    assert set(found) == {THE_FILE}


@pytest.mark.parametrize(
    "code",
    [
        "import flwr.supercore.run",
        "from flwr.common.constant import ErrorCode",
        "from flwr import common",
        "from flwr.app import _x",
        "message.metadata.__dict__['_message_id'] = 1",
    ],
)
def test_a_private_name_is_found(code):
    assert private_names(code)


def test_public_names_are_not_found():
    assert not private_names("import torch\nfrom flwr.app import Message\nimport flwr.clientapp")
    assert not private_names("from flwr.serverapp import Grid, strategy as flower")


def test_a_process_can_create_messages_and_number_them():
    run = act_as_server(17)
    message = Message(RecordDict(), 5, "train")
    assert (run.run_id, message.metadata.run_id, message.metadata.src_node_id) == (17, 17, 1)
    number_message(message, 3)
    reply = Message(RecordDict(), reply_to=message)
    assert (message.metadata.message_id, reply.metadata.reply_to_message_id) == ("3", "3")


def test_a_message_is_restored_from_its_parts():
    act_as_server(17)
    message = Message(RecordDict({"c": ConfigRecord({"a": 1})}), 5, "train")
    restored = restore_message(message.metadata, message.content)
    assert restored.content is message.content
    assert restored.metadata is message.metadata
    assert not restored.has_error()


def test_the_codes_of_nodes_that_are_gone():
    assert set(NODE_IS_GONE) == {3, 5}


def test_the_app_that_flower_runs_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    assert bundle() is None
    app = tmp_path / "apps" / "me.mine.0.1.0.12345678"
    monkeypatch.syspath_prepend(app)
    monkeypatch.syspath_prepend(tmp_path)
    assert bundle() == app
