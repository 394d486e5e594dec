"""The roll call: whoever is connected says what it is, and nobody trains."""

import json

import pytest
from flwr.app import Context, RecordDict

from fl.messages import node_info
from fl.messages.flower_internals import SERVER_NODE
from fl.reproducibility.provenance import code_hash, packages
from fl.server import ping
from fl.simulation import InlineGrid


@pytest.fixture
def grid(tiny):
    return InlineGrid(tiny())


def test_everyone_says_what_it_holds(grid, tiny, tmp_path):
    knobs = tiny({"run.dir": str(tmp_path)})
    context = Context(1, SERVER_NODE, {}, RecordDict(), knobs.to_flat())
    ping.app(grid, context)
    said = json.loads((tmp_path / ping.FILE).read_text())
    assert said["server"] == {"code": code_hash(), "packages": list(packages())}
    assert sorted(told["partition"] for told in said["nodes"].values()) == [0, 1, 2, 3, 4]
    assert sum(told["images"] for told in said["nodes"].values()) == 5000
    assert {told["clock_off"] for told in said["nodes"].values()} == {0}


@pytest.mark.parametrize(("off", "found"), [(90.0, 90.0), (-400.0, -400.0), (0.0, 0.0)])
def test_a_clock_is_as_wrong_as_its_answer_s_time_can_t_explain(grid, monkeypatch, off, found):
    real = node_info.time.time

    class Shifted:
        @staticmethod
        def time():
            return real() + off

    monkeypatch.setattr(node_info, "time", Shifted)
    for told in ping.ask_all(grid).values():
        assert told["clock_off"] == pytest.approx(found, abs=10)
        assert abs(told["clock_off"]) <= abs(off)


def test_a_device_that_fails_and_one_that_is_silent_are_in_it(grid, monkeypatch):
    failing, silent = SERVER_NODE + 1, SERVER_NODE + 2
    grid.contexts[failing].node_config["data-path"] = "/nowhere"
    ask = grid.send_and_receive
    monkeypatch.setattr(
        grid,
        "send_and_receive",
        lambda questions, *, timeout: ask(
            [q for q in questions if q.metadata.dst_node_id != silent], timeout=timeout
        ),
    )
    said = ping.ask_all(grid)
    assert "/nowhere" in said[str(failing)]["problem"]
    assert said[str(silent)] == {"problem": "no answer"}
    assert sum("code" in told for told in said.values()) == 3
