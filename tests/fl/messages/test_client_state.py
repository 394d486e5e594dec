import gc
import weakref

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fl.messages import client_state, records

STATE = {"w": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(1.5), "n": torch.tensor(7)}


def test_client_states_come_back_as_they_went():
    state = RecordDict(
        {
            "control": records.pack_network(STATE),
            "counts": MetricRecord({"rounds": 3, "history": [1.0, 2.0]}),
            "words": ConfigRecord({"mode": "slow", "on": True, "raw": b"\x00\xff"}),
            "a": records.pack_network({"b/c": STATE["w"]}),
            "a/b": records.pack_network({"c": STATE["w"] + 1}),
        }
    )
    back = client_state.unpack_state(*client_state.pack_state(state))
    assert back.keys() == state.keys()
    assert dict(back["counts"]) == {"rounds": 3, "history": [1.0, 2.0]}
    assert dict(back["words"]) == {"mode": "slow", "on": True, "raw": b"\x00\xff"}
    assert float(back["a"]["b/c"].numpy()[0, 0]) == 0.0
    assert float(back["a/b"]["c"].numpy()[0, 0]) == 1.0
    control = records.unpack_network(back["control"])
    assert all(torch.equal(control[name], tensor) for name, tensor in STATE.items())


def test_what_a_client_keeps_is_there_in_its_next_round():
    state = RecordDict()
    client_state.remember(state, {})
    assert len(state) == 0
    assert client_state.remembered(state) == {}
    client_state.remember(state, {"w": STATE["w"]})
    assert torch.equal(client_state.remembered(state)["w"], STATE["w"])


def test_reading_a_state_leaves_nothing_for_the_collector():
    gc.disable()
    try:
        state = RecordDict()
        client_state.remember(state, STATE)
        gone = weakref.ref(state["own"])
        client_state.remembered(state)
        client_state.pack_state(state)
        del state
        assert gone() is None
    finally:
        gc.enable()
