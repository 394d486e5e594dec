import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl.simulation import InlineGrid


def counting_app(calls: list[int]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = context.node_config["partition-id"]
        calls.append(partition)
        if partition == 1:
            raise RuntimeError("broken sensor")
        seen = context.state.config_records.get("memory", {"calls": 0})["calls"]
        context.state["memory"] = ConfigRecord({"calls": seen + 1})
        return Message(RecordDict({"r": ConfigRecord({"partition": partition})}), reply_to=message)

    return app


def requests(grid: InlineGrid, nodes: list[int]) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def test_replies_come_in_the_order_of_the_requests_and_one_at_a_time(tiny):
    calls: list[int] = []
    grid = InlineGrid(tiny(), counting_app(calls))
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive(requests(grid, [nodes[4], nodes[0], nodes[2]]))
    assert calls == []
    assert next(replies).content["r"]["partition"] == 4
    assert calls == [4]  # the next client waits until somebody asks for its reply
    rest = list(replies)
    assert calls == [4, 0, 2]
    assert [reply.metadata.src_node_id for reply in rest] == [nodes[0], nodes[2]]


def test_a_client_that_raises_costs_only_its_own_reply(tiny):
    grid = InlineGrid(tiny(), counting_app([]))
    replies = list(grid.send_and_receive(requests(grid, list(grid.get_node_ids()))))
    assert [reply.has_error() for reply in replies] == [False, True, False, False, False]
    assert replies[1].error.reason == "RuntimeError: broken sensor"


def test_clients_remember_and_can_be_given_their_memory_back(tiny):
    grid = InlineGrid(tiny(), counting_app([]))
    first = next(iter(grid.get_node_ids()))
    for _ in range(3):
        list(grid.send_and_receive(requests(grid, [first, first + 2])))
    states = grid.changed_states()
    assert {p: state["memory"]["calls"] for p, state in states.items()} == {0: 3, 2: 3}
    assert grid.changed_states() == {}
    other = InlineGrid(tiny(), counting_app([]))
    other.restore_states({0: states[0]})
    list(other.send_and_receive(requests(other, [first, first + 2])))
    counts = {p: state["memory"]["calls"] for p, state in other.changed_states().items()}
    assert counts == {0: 4, 2: 1}


def test_queues_are_refused(tiny):
    grid = InlineGrid(tiny(), counting_app([]))
    for call in (grid.push_messages, grid.pull_messages, grid.create_message):
        with pytest.raises(NotImplementedError, match="use"):
            call([])
