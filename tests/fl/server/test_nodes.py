"""Devices come late, die, lie and come back; whoever is there is asked, and nobody for ever."""

import time

import numpy as np
import pytest
from flwr.app import Error, Message

import fl.client.app
from fl.data import Form, share, write_shard
from fl.messages import node_info
from fl.messages.flower_internals import SERVER_NODE
from fl.reproducibility import provenance
from fl.server import nodes
from fl.server.app import serve
from fl.server.journal import Journal
from fl.server.nodes import FederationError, Nodes
from fl.simulation import InlineGrid
from tests.callbacks import EachRound


class Field(InlineGrid):
    """Devices that can be pulled out: `away` are not connected, `deaf` never answer."""

    def __init__(self, knobs):
        super().__init__(knobs, fl.client.app.app)
        self.away, self.deaf, self.gone, self.asked = set(), set(), set(), []

    def get_node_ids(self):
        return [node for node in self.contexts if node not in self.away]

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        self.asked.append([(m.metadata.message_type, m.metadata.dst_node_id) for m in messages])
        hearing = [m for m in messages if m.metadata.dst_node_id not in self.deaf | self.gone]
        yield from super().send_and_receive(hearing)
        for message in messages:
            if message.metadata.dst_node_id in self.gone:  # what a SuperLink says for it
                message.metadata.__dict__["_message_id"] = f"late {message.metadata.dst_node_id}"
                reply = Message(Error(5, "Node Unavailable"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = SERVER_NODE
                yield reply

    def node(self, partition):
        return SERVER_NODE + 1 + partition


def field(tiny, **flat) -> Field:
    return Field(tiny({"sampling.clients": 5, "devices.wait": 0.0, **flat}))


def told(field, **flat) -> Nodes:
    nodes = Nodes(field, field_knobs(field, **flat), Form((1, 28, 28), 10))
    nodes.gather()
    return nodes


def field_knobs(field, **flat):
    knobs = next(iter(field.contexts.values())).run_config
    return fl.config.Experiment.from_flat({**knobs, **flat})


def test_every_device_is_known_by_its_partition_and_says_what_it_holds(tiny):
    there = field(tiny, **{"partition.held-out": 0.2})
    members = told(there).members
    assert sorted(members) == [0, 1, 2, 3, 4]
    for partition, member in members.items():
        mine = share({"partition-id": partition}, field_knobs(there))
        assert (member.images, member.held_out) == (len(mine.train), len(mine.held_out))
        assert (member.form, member.source) == (Form((1, 28, 28), 10), "dealt")
        assert member.packages[0].startswith("python 3.")


def test_a_run_does_not_begin_without_the_devices_that_it_needs(tiny):
    there = field(tiny)
    there.away = {there.node(1), there.node(3)}
    words = r"3 of partition\.clients=5 devices can be asked, 5 are needed .*missing: 1, 3;"
    with pytest.raises(FederationError, match=words) as error:
        told(there)
    assert "\n" not in str(error.value)
    assert sorted(told(there, **{"devices.least": 3}).nodes) == [0, 2, 4]


def test_late_devices_are_waited_for_and_no_longer_than_the_bound(tiny, monkeypatch):
    there, clock = field(tiny, **{"devices.wait": 30.0}), [0.0]
    there.away = {there.node(2)}
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def sleep(seconds):
        clock[0] += seconds
        if clock[0] == 10:
            there.away.clear()

    monkeypatch.setattr(time, "sleep", sleep)
    assert len(told(there).nodes) == 5
    assert clock[0] == 10
    there.away = {there.node(2)}
    with pytest.raises(FederationError, match="missing: 2;"):
        told(there)
    assert clock[0] == 40


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"code": "f" * 64}, "it runs other code (ffffffff) than the server"),
        ({"clock": 0.0}, "s slow; set its time"),
        ({"clock": 1e11}, "s fast; set its time"),
        ({"classes": 7}, "its examples are 1x28x28 of 7 classes, the federation's 1x28x28 of 10"),
        ({"shape": [3, 2, 2]}, "its examples are 3x2x2 of 10 classes"),
        ({"partition-id": 7}, "it is partition 7, expected 0 to 4"),
        ({"partition-id": 1}, "partition 1 is there already"),
        ({"images": "many"}, "it does not say who it is: ValueError"),
        ({"clock": None}, "it does not say who it is: KeyError: 'clock'"),
    ],
)
def test_one_odd_device_is_left_out_with_its_reason_and_the_others_go_on(
    tiny, monkeypatch, spoil, reason
):
    tell = node_info.describe

    def odd(partition, mine):
        content = tell(partition, mine)
        if partition == 3:
            content["config"].update({k: v for k, v in spoil.items() if v is not None})
            for key in [k for k, v in spoil.items() if v is None]:
                del content["config"][key]
        return content

    monkeypatch.setattr(node_info, "describe", odd)
    there = told(field(tiny), **{"devices.least": 4})
    assert sorted(there.nodes) == [0, 1, 2, 4]
    assert reason in str(there.absent())


@pytest.mark.parametrize("config", [{"partition-id": "three"}, {}, {"data-path": "/nowhere"}])
def test_a_device_that_can_t_say_what_it_holds_is_left_out(tiny, caplog, config):
    there = field(tiny)
    context = there.contexts[there.node(3)]
    context.node_config.clear()
    context.node_config.update({"partition-id": 3} | config if config else {})
    nodes = told(there, **{"devices.least": 4})
    assert sorted(nodes.nodes) == [0, 1, 2, 4]
    assert "ConfigError" in str(nodes.absent())
    assert "left out" in caplog.text
    assert ("/nowhere does not exist" in caplog.text) == ("data-path" in config)


def test_what_all_nodes_have_in_common_is_said_at_once(tiny, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits in vain"))
    monkeypatch.setattr(nodes, "code_hash", lambda: "something else")
    with pytest.raises(FederationError, match=r"0 of .* it runs other code"):
        told(field(tiny, **{"devices.wait": 120.0}))
    monkeypatch.undo()
    there = field(tiny, **{"devices.wait": 120.0})
    for context in there.contexts.values():  # `flwr run` with more nodes than clients
        context.node_config["num-partitions"] = 7
    with pytest.raises(FederationError, match="num-partitions=7, expected 5"):
        told(there)


def test_a_device_that_is_put_right_is_taken_again_and_asked_ever_more_seldom(tiny):
    there = field(tiny)
    there.deaf = {there.node(2)}
    members = told(there, **{"devices.least": 1})
    before = len(there.asked)
    for _ in range(12):
        members.ready()
    assert 2 <= len(there.asked) - before <= 4
    assert members.absent() == [{"partition": 2, "reason": "not connected"}] or members.absent()
    there.deaf.clear()
    for _ in range(16):
        members.ready()
    assert sorted(members.nodes) == [0, 1, 2, 3, 4]
    assert members.absent() == []


def test_a_device_comes_back_under_another_node_id(tiny):
    there = field(tiny)
    members = told(there)
    context = there.contexts.pop(there.node(2))
    members.ready()
    assert sorted(members.nodes) == [0, 1, 3, 4]
    assert members.absent() == [{"partition": 2, "reason": "not connected"}]
    context.node_id = 99
    there.contexts[99] = context
    members.ready()
    assert members.nodes[2] == 99


def play(grid, knobs, folder, watch=lambda line: None):
    journal = Journal(folder)
    result = serve(
        grid, knobs, journal, callbacks=[EachRound(watch)], started_by={"command": "test"}
    )
    return result, journal.rounds()


@pytest.mark.parametrize(
    ("how", "reason"), [("deaf", "no reply within 5 s"), ("gone", "Node Unavailable")]
)
def test_a_device_that_dies_in_a_round_costs_that_round_and_is_not_asked_until_it_is_back(
    tiny, tmp_path, how, reason
):
    flat = {"rounds": 6, "devices.reply": 5.0, "devices.least": 2}
    grid = field(tiny, **flat)

    def watch(line):
        if line["round"] == 1:
            getattr(grid, how).add(grid.node(3))
        if line["round"] == 3:
            getattr(grid, how).clear()

    result, lines = play(grid, field_knobs(grid), tmp_path, watch)
    assert lines[2]["refused"] == [{"partition": 3, "reason": reason}]
    assert (lines[2]["asked"], lines[2]["replied"]) == (5, 4)
    assert lines[3]["left_out"][0]["partition"] == 3
    assert (lines[3]["asked"], lines[3]["replied"], lines[3]["refused"]) == (4, 4, [])
    assert (lines[6]["asked"], lines[6]["devices"], lines[6]["left_out"]) == (5, 5, [])
    assert result["rounds"] == 6


@pytest.mark.slow
def test_a_run_whose_devices_all_die_ends_and_can_be_resumed(tiny, tmp_path):
    grid = field(tiny, rounds=3)

    def watch(line):
        grid.away = set(grid.contexts) if line["round"] == 1 else set()

    with pytest.raises(FederationError, match="0 of"):
        play(grid, field_knobs(grid), tmp_path / "run", watch)
    grid.away.clear()
    journal = Journal(tmp_path / "run")
    again = serve(grid, field_knobs(grid), journal, resume=True, started_by={"command": "test"})
    undisturbed, _ = play(field(tiny, rounds=3), field_knobs(grid), tmp_path / "whole")
    assert again["model_sha256"] == undisturbed["model_sha256"]


class Replaying(Field):
    """Client 1 answers with what is no answer to the request."""

    def __init__(self, knobs, change):
        super().__init__(knobs)
        self.change, self.first = change, None

    def send_and_receive(self, messages, *, timeout=None):
        for reply in super().send_and_receive(messages):
            training = not reply.has_error() and "metrics" in reply.content
            if training and reply.metadata.src_node_id == self.node(1):
                self.first = self.first or reply
                reply = self.change(self, reply)
            yield reply


def replayed(grid, reply):
    return grid.first


def of_another_run(grid, reply):
    reply.metadata.__dict__["_run_id"] = 17
    return reply


def in_another_s_name(grid, reply):
    reply.metadata.__dict__["_src_node_id"] = grid.node(2)
    return reply


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (replayed, ["a reply to no request of this round", "no reply within 3600 s"]),
        (of_another_run, ["the reply is node 3's, of run 17"]),
        (in_another_s_name, ["the reply is node 4's, of run 1"]),
    ],
)
def test_a_replayed_or_foreign_reply_is_refused(tiny, tmp_path, change, reasons):
    knobs = field_knobs(field(tiny), rounds=2)
    _, lines = play(Replaying(knobs, change), knobs, tmp_path)
    assert [r["reason"] for r in lines[2]["refused"]] == reasons
    assert lines[2]["replied"] == 4


def test_a_server_without_any_data_trains_devices_to_the_model_of_the_simulation(tiny, tmp_path):
    knobs = tiny({"sampling.clients": 3, "partition.held-out": 0.2, "recipe": "batchnorm"})
    simulated, _ = play(InlineGrid(knobs), knobs, tmp_path / "simulated")
    alone = knobs.replace({"data.name": "devices"})
    grid = InlineGrid(alone)
    for partition, context in enumerate(grid.contexts.values()):
        path = write_shard(tmp_path / str(partition), partition, knobs)
        context.node_config["data-path"] = str(path)
    result, lines = play(grid, alone, tmp_path / "run")
    assert result["model_sha256"] == simulated["model_sha256"]
    assert (result["final_accuracy"], result["best_round"], result["best_chosen_by"]) == (None,) * 3
    assert lines[2]["test_accuracy"] is None
    assert 0 < lines[2]["personal_accuracy_held_out"] <= 1
    header = Journal(tmp_path / "run").header()
    assert [d["source"] for d in header["devices"]] == ["shard"] * 5
    assert header["data_sha256"] is None


def test_devices_agree_on_what_most_of_them_hold(tiny, tmp_path):
    knobs = tiny({"data.name": "devices", "devices.least": 4, "sampling.clients": 5})
    grid = Field(knobs.replace({"devices.wait": 0.0}))
    for partition, context in enumerate(grid.contexts.values()):
        labels = np.arange(20) % (3 if partition == 0 else 4)
        images = np.zeros((20, 6, 6), np.uint8) + labels[:, None, None].astype(np.uint8)
        both = {
            f"{s}_{w}": v
            for s in ("train", "test")
            for w, v in (("images", images), ("labels", labels))
        }
        np.savez(tmp_path / f"{partition}.npz", **both)
        context.node_config["data-path"] = str(tmp_path / f"{partition}.npz")
    members = Nodes(grid, knobs)
    members.gather()
    assert (members.form, sorted(members.nodes)) == (((1, 6, 6), 4), [1, 2, 3, 4])
    assert members.absent()[0]["reason"].startswith("its examples are 1x6x6 of 3 classes")
    assert provenance.packages()[0] == members.members[1].packages[0]


def test_a_full_disk_on_a_device_costs_that_device_its_round(tiny, tmp_path, monkeypatch):
    fit = fl.client.task.share

    def full(node_config, knobs):
        if node_config["partition-id"] == 3:
            raise OSError(28, "No space left on device")
        return fit(node_config, knobs)

    def watch(line):
        monkeypatch.setattr(fl.client.task, "share", full if line["round"] == 1 else fit)

    grid = field(tiny, rounds=3)
    _, lines = play(grid, field_knobs(grid), tmp_path, watch)
    reason = "OSError: [Errno 28] No space left on device"
    assert lines[2]["refused"] == [{"partition": 3, "reason": reason}]
    assert (lines[2]["replied"], lines[3]["replied"]) == (4, 5)
