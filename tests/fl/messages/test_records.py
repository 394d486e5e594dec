import dataclasses
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl.messages import records
from fl.messages.flower_internals import act_as_server
from fl.nn.probes import Layer, Signals
from fl.server.replies import fault

STATE = {"w": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(1.5), "n": torch.tensor(7)}
FIGURES = {
    "batch_size": 4,
    "epochs": 1,
    "held_out": 0,
    "global_correct": 0,
    "personal_correct": 0,
    "examples": 10,
    "steps": 3,
    "single_value_steps": 0,
    "loss": 0.5,
    "gradient_norm": 2.0,
    "gradient_norm_p10": 1.0,
    "gradient_norm_p50": 2.0,
    "gradient_norm_p90": 3.0,
    "clipped_share": 0.5,
    "update_norm": 1.0,
    "seconds": 0.1,
}


def reply(change=None) -> Message:
    act_as_server(1)
    content = records.train_reply(STATE, partition=4, held=10, figures=FIGURES)
    if change:
        change(content)
    return Message(content, 2, "train")


def test_networks_come_back_as_they_went():
    back = records.unpack_network(records.pack_network(STATE))
    assert back.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape


def test_a_record_is_what_flower_makes_of_the_same_arrays():
    arrays = {name: tensor.numpy() for name, tensor in STATE.items()}
    ours, theirs = records.pack_arrays(arrays), ArrayRecord()
    for name, values in arrays.items():
        theirs[name] = Array(values)
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert ours.is_dirty
    back = pickle.loads(pickle.dumps(ours))
    assert ours.object_id == theirs.object_id
    back["w"] = Array(np.zeros(3))
    assert back != ours == theirs


def test_only_a_network_and_plain_numbers_leave_a_client():
    content = records.train_reply(STATE, 4, 10, FIGURES)
    assert {key: type(record) for key, record in content.items()} == {
        "arrays": ArrayRecord,
        "metrics": MetricRecord,
    }
    assert records.figures(content) == {"partition": 4, "held": 10, **FIGURES}


def test_a_figure_that_json_does_not_know_becomes_none():
    content = records.train_reply(STATE, 4, 10, {**FIGURES, "loss": float("inf")})
    assert records.figures(content)["loss"] is None


def test_reading_a_message_leaves_nothing_for_the_collector():
    """Flower's `content.array_records` is a reference cycle: it would keep networks in memory."""
    gc.disable()
    try:
        content = records.train_reply(STATE, 4, 10, FIGURES)
        content["config"] = ConfigRecord({"server-round": 3})
        gone = weakref.ref(content["arrays"])
        records.read_request(content)
        records.figures(content)
        del content
        assert gone() is None
    finally:
        gc.enable()


def test_a_good_reply_has_no_fault():
    assert fault(reply(), records.pack_network(STATE), partition=4) is None


SIGNALS = Signals(3, np.array([[0.5, 1.0, 0.0, 2.0, np.nan, np.nan]] * 2))


def signalling(change=None) -> Message:
    act_as_server(1)
    content = records.train_reply(STATE, partition=4, held=10, figures=FIGURES, signals=SIGNALS)
    if change:
        change(content["signals"])
    return Message(content, 2, "train")


def test_signals_travel_in_the_order_of_a_layer_s_fields():
    names = [field.name.replace("_", "-") for field in dataclasses.fields(Layer)]
    assert names == ["name", "kind", *records.LAYER]


def test_signals_come_back_as_they_went():
    back = records.signals(signalling().content)
    assert back.images == 3
    np.testing.assert_array_equal(back.figures, SIGNALS.figures)
    assert records.figures(signalling().content) == records.figures(reply().content)


def test_signals_are_good_where_they_were_asked_for_and_a_fault_elsewhere():
    like = records.pack_network(STATE)
    assert fault(signalling(), like, partition=4, layers=2) is None
    unasked = fault(signalling(), like, partition=4)
    assert unasked == "reply holds ['arrays', 'metrics', 'signals'], expected arrays and metrics"
    missing = fault(reply(), like, partition=4, layers=2)
    assert missing == "reply holds ['arrays', 'metrics'], expected arrays and metrics and signals"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("dead"), "signals ['dead'] are missing or unknown"),
        (lambda s: s.update({"more": [1.0]}), "signals ['more'] are missing or unknown"),
        (lambda s: s.update({"acv": [1.0]}), "acv is 1 values, expected 2 numbers"),
        (lambda s: s.update({"acv": 1.0}), "acv is 1.0, expected 2 numbers"),
        (lambda s: s.update({"images": 0}), "images=0, expected a whole number"),
        (lambda s: s.update({"images": 10**18}), "images=1000000000000000000, expected a whole"),
        (lambda s: s.update({"acv": [1.0, -1.0]}), "acv=-1, expected a number from 0 to inf"),
        (lambda s: s.update({"dead": [math.nan, 1.5]}), "dead=1.5, expected a number from 0 to 1"),
        (lambda s: s.update({"images": [3, 3]}), "images=[3, 3], expected a whole number"),
    ],
)
def test_every_fault_of_signals_is_named_in_one_line(change, words):
    found = fault(signalling(change), records.pack_network(STATE), partition=4, layers=2)
    assert found is not None
    assert words in found
    assert "\n" not in found


def test_only_a_request_that_says_so_wants_signals():
    for config, wants in (({}, False), ({"measure-signals": True}, True)):
        content = RecordDict({"config": ConfigRecord({"server-round": 1, **config})})
        assert records.Request({}, content["config"]).measures == wants


def set_array(name: str, value: np.ndarray):
    def change(content: RecordDict) -> None:
        content["arrays"] = records.pack_arrays(
            {**records.unpack_arrays(content["arrays"]), name: value}
        )

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_array("w", np.zeros((3, 2), np.float32)), "w is float32 (3, 2), expected"),
        (set_array("w", np.zeros((2, 3), np.float64)), "w is float64"),
        (set_array("w", np.full((2, 3), np.nan, np.float32)), "w holds values that are not finite"),
        (set_array("scalar", np.array(np.inf, np.float32)), "scalar holds values"),
        (set_array("extra", np.zeros(1)), "['extra'] are missing or unknown"),
        (lambda c: c.pop("metrics"), "reply holds ['arrays']"),
        (lambda c: c["metrics"].update({"num-examples": 0}), "num-examples=0, expected a whole"),
        (lambda c: c["metrics"].update({"num-examples": float("nan")}), "num-examples=nan"),
        (lambda c: c["metrics"].pop("num-examples"), "['num-examples'] are missing"),
        (lambda c: c["metrics"].pop("examples"), "['examples'] are missing"),
        (lambda c: c["metrics"].update({"steps": -1}), "steps=-1, expected"),
        (lambda c: c["metrics"].update({"personal-correct": 1}), "is more than held-out=0"),
        (lambda c: c["metrics"].update({"partition-id": 3}), "partition-id=3, expected 4"),
        (lambda c: c["arrays"].pop("w"), "['w'] are missing or unknown"),
    ],
)
def test_every_fault_is_named_in_one_line(change, words):
    found = fault(reply(change), records.pack_network(STATE), partition=4)
    assert found is not None
    assert words in found
    assert "\n" not in found


def test_an_error_reply_says_its_reason():
    act_as_server(1)
    request = Message(RecordDict(), 2, "train")
    message = Message(Error(7, "out of memory"), reply_to=request)
    assert fault(message, ArrayRecord(), partition=4) == "out of memory"


def test_bytes_are_counted_as_they_travel():
    record = records.pack_network({"w": torch.zeros(1000)})
    assert records.size(record) == len(record["w"].data) >= 4000


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.float32(3),
        np.zeros((0, 4), np.int8),
        np.arange(3, dtype=">i8"),
    ],
    ids=["matrix", "fortran", "scalar", "empty", "big-endian"],
)
def test_arrays_are_read_as_flower_reads_them(values):
    array = Array(np.asarray(values))
    (packed,) = records.pack_arrays({"a": np.asarray(values)}).values()
    assert packed == array
    (found,) = records.unpack_arrays(ArrayRecord({"a": array})).values()
    assert found.dtype == array.numpy().dtype
    assert found.shape == array.numpy().shape
    assert np.array_equal(found, array.numpy())


def test_an_array_whose_shape_is_none_is_refused():
    whole = Array(np.arange(3.0))
    odd = Array(whole.dtype, whole.shape, whole.stype, whole.data.replace(b"(3,), ", b"(-1,),"))
    assert len(odd.data) == len(whole.data)
    with pytest.raises(ValueError, match="negative"):
        records.unpack_arrays(ArrayRecord({"a": odd}))


@pytest.mark.parametrize("cut", [0, 5, 9, 40, 127, 130, 150, 151])
def test_arrays_that_were_cut_off_are_refused(cut):
    whole = Array(np.arange(3.0))
    assert len(whole.data) == 152
    part = Array(whole.dtype, whole.shape, whole.stype, whole.data[:cut])
    with pytest.raises((ValueError, EOFError)):
        records.unpack_arrays(ArrayRecord({"a": part}))


def test_an_archive_in_an_array_s_place_is_refused():
    file = io.BytesIO()
    np.savez(file, a=np.arange(3.0))
    odd = Array("float64", (3,), "numpy.ndarray", file.getvalue())
    with pytest.raises(ValueError, match="are a NpzFile, expected an array"):
        records.unpack_arrays(ArrayRecord({"a": odd}))
