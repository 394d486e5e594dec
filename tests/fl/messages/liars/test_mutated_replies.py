"""Replies that start as real ones and are changed at random: the round ends, and what it leaves
is the mean of those that count, each with no more weight than its client's images."""

import copy
import math
import os
import resource
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl.messages import records
from fl.messages.flower_internals import restore_message
from fl.reproducibility.seeds import stream
from fl.server.app import serve
from fl.server.journal import Journal
from fl.simulation import InlineGrid
from strategies.serving.server import Mean
from tests.callbacks import EachRound

LIAR = 1
FULL = os.environ.get("FEDNF_FULL") == "1"
CASES = 500 if FULL else 25
"""Mutated replies of each of four kinds of run."""
WHOLE = (-1, 0, 1, 3, 15, 16, 17, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 10**18)
REAL = (math.nan, math.inf, -math.inf, -1.0, 0.0, 0.5, 1e-320, 1e30, 1e308, -1e308)
TEXTS = (
    "\x1b]0;title\x07\x1b[2J",
    "\u202egnp.exe",
    "\ud800",
    "a\nb\r\n",
    "x" * 10_000,
    "",
    "{}[/]",
)


def one_of(rng, values: Sequence):
    return values[int(rng.integers(len(values)))]


def number(rng) -> object:
    kind = rng.integers(4)
    if kind == 0:
        return [float(one_of(rng, REAL)) for _ in range(rng.integers(5))]
    return one_of(rng, WHOLE if kind == 1 else REAL)


def figures(rng, record: MetricRecord) -> None:
    """Change, drop or add figures."""
    for _ in range(rng.integers(1, 4)):
        key = one_of(rng, sorted(record)) if len(record) else "loss"
        match rng.integers(6):
            case 0:
                record.pop(key, None)
            case 1:
                record[one_of(rng, TEXTS)] = 1.0
            case 2 if isinstance(record.get(key), list) and record[key]:
                values = list(record[key])  # pyrefly: ignore
                values[rng.integers(len(values))] = one_of(rng, REAL)
                record[key] = values if isinstance(values[0], float) else [1.0]
            case _:
                record[key] = number(rng)


def values(rng, array: Array) -> Array:
    """Put odd values into an array of the same form."""
    found = array.numpy().copy()
    odd = one_of(rng, (math.nan, math.inf, -5.0, 1e38, -1e38, 1e30, 0.0, 1e-40))
    kind = rng.integers(4)
    if kind == 0:
        found = np.asarray(found * rng.uniform(-2, 2), found.dtype)  # which no check can tell
    elif kind == 1 and found.size:
        found.reshape(-1)[rng.integers(found.size)] = odd
    else:
        found = np.full_like(found, odd)
    return Array(found)


def form(rng, array: Array) -> Array:
    """Change the bytes, or what is said of them."""
    raw = bytearray(array.data)
    said = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype}
    match rng.integers(6):
        case 0:
            raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        case 1:
            del raw[rng.integers(len(raw)) :]
        case 2:
            raw += bytes(rng.integers(1, 100))
        case 3:
            said["stype"] = "pickle"
        case 4:
            return Array(array.numpy().astype(one_of(rng, ("float64", "int8", "bool", "S3"))))
        case _:
            return Array(np.zeros(one_of(rng, ((0,), (1,), (3, 3, 3), (10**5,))), np.float32))
    return Array(**said, data=bytes(raw))


def tensors(rng, record: ArrayRecord) -> None:
    """Change, drop or add tensors."""
    name = one_of(rng, sorted(record))
    match rng.integers(6):
        case 0:
            del record[name]
        case 1:
            record[one_of(rng, TEXTS)] = record[name]
        case 2:
            record[name] = form(rng, record[name])
        case _:
            record[name] = values(rng, record[name])


def changed(rng, reply: Message) -> Iterator[Message]:
    """Yield what comes in a reply's place."""
    content, metadata = reply.content, reply.metadata
    match rng.integers(14):
        case 0:
            content.pop(one_of(rng, sorted(content)))
        case 1:
            record = one_of(rng, (MetricRecord({"x": 1.0}), ConfigRecord({"x": "y"})))
            content[one_of(rng, ("arrays", "more", *TEXTS))] = record
        case 2:
            code = one_of(rng, (0, 2, 5, 8, records.FAULT, records.BUG, 10**6))
            yield Message(Error(code, one_of(rng, TEXTS) * 3), reply_to=restored(reply))
            return
        case 3:
            name = one_of(rng, ("_src_node_id", "_run_id"))
            metadata.__dict__[name] = int(rng.integers(1, 9))
        case 4:
            metadata.__dict__["_reply_to_message_id"] = one_of(rng, ("", "7", "x" * 1000))
        case 5:
            yield copy.copy(reply)
        case 6:
            return
        case _:
            kinds = {MetricRecord: figures, ArrayRecord: tensors}
            record = content[one_of(rng, sorted(content))]
            kinds[type(record)](rng, record)
    yield reply


def restored(reply: Message) -> Message:
    """Return the request that a reply is to."""
    metadata = copy.copy(reply.metadata)
    known = metadata.__dict__
    known["_message_id"] = metadata.reply_to_message_id
    known["_src_node_id"], known["_dst_node_id"] = metadata.dst_node_id, metadata.src_node_id
    known["_reply_to_message_id"] = ""
    return restore_message(metadata, RecordDict())


class Canned(InlineGrid):
    """Clients train once; later they send the same again, and one of them something odd."""

    def __init__(self, knobs) -> None:
        super().__init__(knobs)
        self.knobs, self.honest, self.sent, self.number = knobs, {}, {}, 0

    def answers(self, requests):
        for message, context in requests:
            partition = int(context.node_config["partition-id"])
            kind = message.metadata.message_type
            if kind == records.WHO_ARE_YOU:
                yield from super().answers([(message, context)])
                continue
            if (kind, partition) not in self.honest:
                (reply,) = super().answers([(message, context)])
                self.honest[kind, partition] = reply.content
            content = {k: copy.deepcopy(r) for k, r in self.honest[kind, partition].items()}
            reply = Message(RecordDict(content), reply_to=message)
            yield reply

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        kinds = {m.metadata.dst_node_id: m.metadata.message_type for m in messages}
        for reply in super().send_and_receive(messages, timeout=timeout):
            kind = kinds[reply.metadata.src_node_id]
            if kind == records.WHO_ARE_YOU or reply.content["metrics"]["partition-id"] != LIAR:
                yield reply
                continue
            self.number += kind == "train"
            came = list(changed(stream(self.knobs.seed, "mutation", self.number, kind), reply))
            self.sent |= {kind: came[-1] if came else None}
            yield from came


KINDS = {
    "plain": {"signals.every": 1},
    "pooled": {"recipe": "batchnorm", "state.bn": "pooled", "strategy.max-norm": 1e6},
    "recalibrated": {"recipe": "batchnorm", "state.bn": "recalibrate"},
    "auc": {"task.metrics": "auc", "recipe": "batchnorm", "state.bn": "average"},
}


def expected(grid: Canned, line: dict) -> dict[str, np.ndarray]:
    """Return the mean over honest clients, and over the liar where its reply was used."""
    mean = Mean()
    for partition in range(3):
        content = grid.honest["train", partition]
        weight = content["metrics"]["num-examples"]
        if partition == LIAR:
            if line["replied"] < 3:
                continue
            content = grid.sent["train"].content
            assert 1 <= content["metrics"]["num-examples"] <= weight  # what one client may do
        arrays = records.unpack_arrays(content["arrays"])
        mean.add(arrays, float(content["metrics"]["num-examples"]))
    return mean.result()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_reply_is_refused_or_counts_for_no_more_than_its_client(small, tmp_path, kind):
    knobs = small({"rounds": CASES, **KINDS[kind]})
    grid, journal, times, outcomes = Canned(knobs), Journal(tmp_path / "run"), [], []

    def watch(line) -> None:
        times.append(time.monotonic())
        if not line["round"]:
            return
        assert line["replied"] >= 2, line["refused"]
        assert {r["partition"] for r in line["refused"]} <= {LIAR}
        assert all(len(r["reason"]) < 1200 for r in line["refused"])
        assert all(r["reason"].isprintable() for r in line["refused"])
        outcomes.append(line["replied"])
        model = journal.checkpoint().model
        for name, value in expected(grid, line).items():
            assert np.isfinite(model[name]).all()
            if "running_" in name and kind != "auc":
                assert "running_mean" in name or (model[name] >= 0).all()
            else:
                np.testing.assert_allclose(model[name], value, rtol=1e-5, atol=1e-7)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    serve(grid, knobs, journal, callbacks=[EachRound(watch)], started_by={"command": "test"})
    assert len(journal.rounds()) == CASES + 1
    assert set(outcomes) == {2, 3} or (2 in outcomes and not FULL)  # some refused, some harmless
    assert max(np.diff(times)) < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000  # kB
