"""A node may claim the partition that its key was registered for, and no other."""

import json

import pytest

import fl.client.app
from fl.config.parsing import ConfigError
from fl.messages import bound_keys
from fl.messages.flower_internals import SERVER_NODE
from fl.server.nodes import Nodes
from fl.simulation import InlineGrid

ANSWER = {"success": True, "node-id": SERVER_NODE + 1}


def registered(folder, *partitions: int):
    """Register the key of each device for its own partition, as `register.sh` does."""
    for partition in partitions:
        told = {**ANSWER, "node-id": SERVER_NODE + 1 + partition}
        bound_keys.file_of(folder, partition).write_text(json.dumps(told, indent=2))


@pytest.fixture
def federation(tiny, tmp_path):
    """Make nodes of five clients; whoever is told to claims another's partition."""

    def make(claims, **flat) -> Nodes:
        knobs = tiny({"devices.wait": 0.0, "devices.least": 1, **flat})
        grid = InlineGrid(knobs, fl.client.app.app)
        for node, claimed in claims.items():
            grid.contexts[SERVER_NODE + 1 + node].node_config["partition-id"] = claimed
        nodes = Nodes(grid, knobs)
        nodes.gather()
        return nodes

    return make


def test_the_right_device_is_taken_though_another_claimed_its_partition_first(federation, tmp_path):
    registered(tmp_path, 0, 1, 2, 3, 4)
    nodes = federation({0: 3}, **{"devices.keys": str(tmp_path)})
    assert nodes.nodes == {n: SERVER_NODE + 1 + n for n in (1, 2, 3, 4)}
    reason = "it says that it is partition 3, and its key is for partition 0"
    assert nodes.absent() == [{"partition": 0, "reason": reason}]


def test_where_keys_are_not_bound_the_first_has_the_partition_and_the_second_is_left_out(
    federation,
):
    nodes = federation({0: 3})
    assert nodes.nodes[3] == SERVER_NODE + 1
    assert 0 not in nodes.nodes
    (left_out, late) = nodes.absent()
    assert left_out == {"partition": 0, "reason": "not connected"}
    assert "partition 3 is there already" in late["reason"]


def test_a_key_that_was_never_registered_or_was_removed_is_for_no_partition(federation, tmp_path):
    registered(tmp_path, 0, 1, 2, 3)
    nodes = federation({}, **{"devices.keys": str(tmp_path)})
    assert sorted(nodes.nodes) == [0, 1, 2, 3]
    assert "it says that it is partition 4, and its key is for none" in str(nodes.absent())
    registered(tmp_path, 4)  # while the run goes on
    for _ in range(3):
        nodes.ready()
    assert sorted(nodes.nodes) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("text", ["", "{}", '{"node-id": "x"}', "[]", "\x00"])
def test_a_file_that_holds_no_node_is_named_in_one_line(tmp_path, text):
    file = bound_keys.file_of(tmp_path, 0)
    assert bound_keys.node_of(file) is None
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"device-0\.json should hold what flwr") as error:
        bound_keys.bound(tmp_path, 1)
    assert "\n" not in str(error.value)


def test_the_folder_of_keys_is_an_absolute_path(tiny):
    with pytest.raises(ConfigError, match="absolute path"):
        tiny({"devices.keys": "keys"})
