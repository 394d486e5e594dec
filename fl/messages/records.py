"""What travels between server and clients, as Flower records; the only place that knows keys.

A request carries one ArrayRecord (the global network) and one ConfigRecord (the round, what the
strategy asks, and whether to measure signals). A reply carries one ArrayRecord (the client's
network) and one MetricRecord of plain numbers, and where it is asked for them a second one of
signals: a number per layer and figure. Where the strategy has vectors, both carry a second
ArrayRecord with them. Where a run starts from given weights, those that stay with clients are in
another one of a request. Where the primary metric does not count right answers, a last record of a
reply has its sums. Nothing else leaves a client.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from torch import Tensor

from fl.fleet import Work
from fl.nn.probes import Signals
from fl.reproducibility.errors import as_told, trace_as_told, writable
from strategies import arrays as npy
from strategies.serving.private import CLIP
from strategies.serving.server import (
    ARRAYS,
    CONFIG,
    METRICS,
    PARTITION,
    ROUND,
    VECTORS,
    WEIGHT,
)

SIGNALS, INITIAL = "signals", "initial"
MEASURE = "measure-signals"
WHO_ARE_YOU, RECALIBRATE = "query.who_are_you", "query.recalibrate"
SCORE = "query.score"
FAULT, BUG = 1000, 1001
"""Codes of a client's error: a fault of its data or its device, and an exception that is neither.
Flower's own codes are small."""

COUNTS = (
    "batch-size",
    "epochs",
    "examples",
    "steps",
    "single-value-steps",
    "held-out",
    "global-correct",
    "personal-correct",
)
RIGHT = ("global-correct", "personal-correct")
"""Those of `COUNTS` that replies have where the primary metric counts right answers."""
SCORES, SHAPE, SCORED = "scores", "shape", ("global", "personal")
GRADIENTS = ("gradient-norm", "gradient-norm-p10", "gradient-norm-p50", "gradient-norm-p90")
MEASURES = ("loss", *GRADIENTS, "clipped-share", "update-norm", "seconds")
IMAGES = "images"
LAYER = ("acsm", "acv", "gradient-acsm", "gradient-acv", "branch-acv", "dead")
"""Figures of a layer; NaN stands for one that it does not have."""
_JOURNAL = {PARTITION: "partition", WEIGHT: "held"}
_LARGEST = float(np.finfo(np.float32).max)
"""A larger figure can't be of a training in float32, and overflows where a mean is taken."""
_Kind = TypeVar("_Kind", ArrayRecord, ConfigRecord, MetricRecord)


def pack_network(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Turn a network's tensors into a record."""
    return pack_arrays({name: tensor.numpy() for name, tensor in state.items()})


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Turn NumPy arrays into a record."""
    return npy.record(arrays)


def unpack_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Turn a record into NumPy arrays, which can only be read: they are the record's own bytes."""
    return npy.arrays(record)


def unpack_network(record: ArrayRecord) -> dict[str, Tensor]:
    """Turn a record into a network's tensors."""
    return {name: torch.from_numpy(a.copy()) for name, a in unpack_arrays(record).items()}


def size(record: ArrayRecord) -> int:
    """Return the bytes of a record's tensors as they travel."""
    return sum(len(array.data) for array in record.values())


def carried(content: RecordDict) -> int:
    """Return the bytes of all tensors that a message carries."""
    return sum(size(record) for record in content.values() if isinstance(record, ArrayRecord))


def train_reply(
    state: Mapping[str, Tensor],
    partition: int,
    held: int,
    figures: Mapping[str, int | float],
    signals: Signals | None = None,
    scores: tuple[Tensor | None, Tensor | None] | None = None,
) -> RecordDict:
    """Return what a client sends back: its network, the figures of its round, and any signals.

    The weight in the mean is the number of images held, not of images seen, so that a client with
    more local epochs does not count for more.
    """
    metrics: dict[str, int | float] = {PARTITION: partition, WEIGHT: held}
    metrics |= {name.replace("_", "-"): value for name, value in figures.items()}
    content = RecordDict({ARRAYS: pack_network(state), METRICS: MetricRecord(dict(metrics))})
    if signals is not None:
        columns = signals.figures.T.tolist()
        record: dict = {IMAGES: signals.images, **dict(zip(LAYER, columns, strict=True))}
        content[SIGNALS] = MetricRecord(record)
    if scores is not None:
        known = [torch.zeros(0) if sums is None else sums for sums in scores]
        flat = {name: s.double().flatten().tolist() for name, s in zip(SCORED, known, strict=True)}
        content[SCORES] = MetricRecord({SHAPE: list(known[0].shape), **flat})
    return content


def scores(content: RecordDict) -> list[Tensor]:
    """Return the sums of the primary metric in a reply that has them, before and after training.

    They are empty where the client holds no images out.
    """
    record: dict = dict(_record(content, SCORES, MetricRecord))
    shape = [int(side) for side in record[SHAPE]]
    return [torch.tensor(record[name], dtype=torch.float64).reshape(shape) for name in SCORED]


def signals(content: RecordDict) -> Signals:
    """Return the signals in a reply that has them."""
    record = _record(content, SIGNALS, MetricRecord)
    return Signals(int(record[IMAGES]), np.array([record[key] for key in LAYER]).T)  # pyrefly: ignore


def figures(content: RecordDict) -> dict:
    """Return a reply's figures under the names that the journal uses; None for one not finite."""
    return {
        _JOURNAL.get(name, name.replace("-", "_")): finite(value)
        for name, value in _record(content, METRICS, MetricRecord).items()
    }


@dataclass(frozen=True)
class Request:
    """What a server asks of a client."""

    network: Mapping[str, np.ndarray]
    """The global network."""
    config: ConfigRecord
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The vectors that the strategy shares."""
    initial: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What stays with clients as they are to begin with it, where they can't know that."""

    @property
    def round(self) -> int:
        """The round that the request is of."""
        return int(_number(self.config, ROUND))

    @property
    def clip(self) -> float | None:
        """The norm to which the update is to be clipped; None where it is not."""
        return float(_number(self.config, CLIP)) if CLIP in self.config else None

    @property
    def measures(self) -> bool:
        """Whether the reply should bring signals."""
        return bool(self.config.get(MEASURE, False))


def read_request(content: RecordDict) -> Request:
    """Return what a server asks.

    Raises:
        ValueError: it is no request.
    """
    config = _record(content, CONFIG, ConfigRecord)
    vectors = unpack_arrays(_record(content, VECTORS, ArrayRecord)) if VECTORS in content else {}
    initial = unpack_arrays(_record(content, INITIAL, ArrayRecord)) if INITIAL in content else {}
    return Request(unpack_arrays(network_in(content)), config, vectors, initial)


def read_round(content: RecordDict) -> int:
    """Return the round that a request is of, without reading its network."""
    return Request({}, _record(content, CONFIG, ConfigRecord)).round


@dataclass(frozen=True)
class Truth:
    """What the server knows of a client before it hears of its round."""

    images: int
    """The most images that it can hold: as many as it said when it was asked who it is."""
    held_out: int
    """The most images that it can have scored, likewise."""
    work: Callable[[int], Work]
    """What the round asks of a client that holds so many images."""
    seconds: float
    """The longest that its training can have taken."""

    def contradicted(self, told: Mapping, trained: bool) -> str | None:
        """Say which figure of a reply can't be true; None where all can be.

        A client may hold less than it said, but all else follows from what it holds now, and from
        the work that it was asked for. Only losses, norms and right answers are its own to tell. An
        infinite one passes, since a network that diverges has it, and the journal has null for it.
        """
        for name, most in {WEIGHT: self.images, "held-out": self.held_out}.items():
            if told.get(name, 0) > most:
                return f"{name}={told[name]}, but it said that it holds {most}"
        if not trained:
            return None
        held = told[WEIGHT]
        work = self.work(held)
        steps, known = work.steps(held), {"batch-size": work.batch_size, "epochs": work.epochs}
        for name, value in {**known, "examples": work.examples(held), "steps": steps}.items():
            if told[name] != value:
                return f"{name}={told[name]}, expected {value} of {held} images in this round"
        if told["single-value-steps"] > steps:
            return f"single-value-steps={told['single-value-steps']} are more than steps={steps}"
        for name in MEASURES:
            value, least = told[name], -_LARGEST if name == "loss" else 0
            endless = value == math.inf and name != "seconds"
            if not (endless or least <= value <= _LARGEST):
                return f"{name}={value!r}, expected a finite number from {least:g} to {_LARGEST:g}"
        if (share := told["clipped-share"]) > 1:
            return f"clipped-share={share:g}, expected at most 1"
        if (took := told["seconds"]) > self.seconds:
            return f"seconds={took:g}, but replies are waited for {self.seconds:g} s"
        return None


def failure(message: Message, code: int, reason: str, trace: str = "") -> Message:
    """Answer a message with an error: one line, and below it the traceback that is to be told."""
    line = " ".join(reason.split())
    text = writable(f"{line}\n{trace}" if trace else line)
    return Message(Error(code, text), reply_to=message)


def reason(reply: Message) -> str:
    """Return in one line why a client answers with an error."""
    return _parted(reply)[0] or f"error {reply.error.code}"


def trace(reply: Message) -> str:
    """Return the traceback of a client's error; empty where it tells none."""
    return _parted(reply)[1]


def _parted(reply: Message) -> tuple[str, str]:
    """Return the line and the traceback of an error, of bounded length and without controls.

    An error that is not ours has no traceback.
    """
    text = reply.error.reason or ""
    line, _, trace = text.partition("\n") if reply.error.code in (FAULT, BUG) else (text, "", "")
    return as_told(line), trace_as_told(trace)


def network_in(content: RecordDict) -> ArrayRecord:
    """Return the network that a message carries."""
    return _record(content, ARRAYS, ArrayRecord)


def finite(value: object) -> object:
    """Return a figure as it is, or None for an infinity or NaN, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(content: RecordDict, key: str, kind: type[_Kind]) -> _Kind:
    """Return a message's record.

    Not `content.array_records` and its like: each of those views is a reference cycle with the
    message, which would keep its network in memory until Python's collector comes by.
    """
    record = content.get(key)
    if not isinstance(record, kind):
        raise ValueError(f"message holds {sorted(content)}, expected {key}")
    return record


def _number(record: ConfigRecord, key: str) -> int | float:
    value = record[key]
    if not isinstance(value, int | float):
        raise ValueError(f"{key}={value!r} in a message, expected a number")
    return value
