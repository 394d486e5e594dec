"""The replies of a round: each is checked before it touches the network, and accounted for."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fl.messages import records
from fl.messages.flower_internals import NODE_IS_GONE
from fl.reproducibility.errors import in_words
from fl.server.failures import Failure
from strategies import arrays as npy
from strategies.bounds import distance


@dataclass
class Replies:
    """The replies of a round as they are checked: a stream of good ones, and an account of all."""

    like: ArrayRecord
    """The tensors that each should hold."""
    partition_of: Mapping[int, int]
    """Node id -> partition id, as they were when the round began."""
    seconds: float = math.inf
    """How long they are waited for."""
    trained: bool = True
    """Whether they are of training, or only bring statistics."""
    most: float = 0.0
    """The norm beyond which an update is refused; 0: none."""
    layers: int | None = None
    """Of how many layers each should bring signals; None: of none."""
    accounts: list[dict] = field(default_factory=list)
    refused: list[dict] = field(default_factory=list)
    silent: dict[int, str] = field(default_factory=dict)
    """Nodes that did not reply, or are gone."""
    failures: dict[int, Failure] = field(default_factory=dict)
    """Partition id -> the exception that the client answered with."""
    bytes_up: int = 0

    def good(self, replies: Iterable[Message], sent: Sequence[Message]) -> Iterator[Message]:
        """Yield the usable replies in the order of the requests, whenever they came.

        A reply belongs to the request that it names, whoever it says that it is from: a SuperLink
        answers for a node that is gone. One that names no request of this round is refused.
        """
        early: dict[int, Message] = {}
        turn, places = 0, dict[str, int]()
        for reply in replies:
            name = reply.metadata.reply_to_message_id
            if name not in places:  # requests get their names from the grid, on their way
                places = {m.metadata.message_id: at for at, m in enumerate(sent)}
            place = places.get(name)
            if place is None or place < turn or place in early:
                self._foreign(reply)
                continue
            early[place] = reply
            while turn in early:
                yield from self._checked(sent[turn], early.pop(turn))
                turn += 1
        for place in range(turn, len(sent)):
            if place in early:
                yield from self._checked(sent[place], early[place])
            else:
                node = sent[place].metadata.dst_node_id
                self.silent[node] = f"no reply within {self.seconds:.0f} s"
                self.refuse({node: self.silent[node]})

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Take note of nodes whose replies are missing or useless, and why."""
        self.refused += [
            {"partition": self.partition_of[node], "reason": reason}
            for node, reason in reasons.items()
        ]

    def summary(self) -> dict:
        """Return the round's figures that come from its replies."""
        return {
            "replied": len(self.accounts),
            "refused": self.refused,
            "images": sum(account["examples"] for account in self.accounts),
            "single_value_steps": sum(a["single_value_steps"] for a in self.accounts),
            "bytes_up": self.bytes_up,
            "global_accuracy_held_out": self._own_accuracy("global_correct"),
            "personal_accuracy_held_out": self._own_accuracy("personal_correct"),
        }

    def take_over(self, others: "Replies", what: str) -> None:
        """Add the faults and the bytes of replies about something else to the round's account."""
        self.bytes_up += others.bytes_up
        self.silent |= others.silent
        self.failures |= others.failures
        self.refused += [
            {**refusal, "reason": f"{what}: {refusal['reason']}"} for refusal in others.refused
        ]

    def _own_accuracy(self, right: str) -> float | None:
        """Return the accuracy on all clients' held-out images; None where there are none."""
        total = sum(account["held_out"] for account in self.accounts)
        return sum(account[right] for account in self.accounts) / total if total else None

    def _fault(self, reply: Message, partition: int) -> str | None:
        """Say why a reply can't be used; None where it can. No reply is worth the round."""
        expected = {"trained": self.trained, "layers": self.layers}
        try:
            found = fault(reply, self.like, partition, **expected)
            return found or self._too_far(reply)
        except Exception as error:
            return f"it can't be read: {in_words(error)}"

    def _too_far(self, reply: Message) -> str | None:
        if not (self.most and self.trained):
            return None
        found, start = map(records.unpack_arrays, (records.network_in(reply.content), self.like))
        norm = distance(found, start)
        if norm <= self.most:
            return None
        return f"its update's norm {norm:.4g} is more than strategy.max-norm={self.most:g}"

    def _foreign(self, reply: Message) -> None:
        sender = self.partition_of.get(reply.metadata.src_node_id)
        self.refused.append({"partition": sender, "reason": "a reply to no request of this round"})

    def _checked(self, request: Message, reply: Message) -> Iterator[Message]:
        node, sender = request.metadata.dst_node_id, reply.metadata.src_node_id
        if reply.has_error():
            if reply.error.code in NODE_IS_GONE:
                self.silent[node] = records.reason(reply)
            elif reply.error.code in (records.FAULT, records.BUG):
                bug = reply.error.code == records.BUG
                failure = Failure(records.reason(reply), records.trace(reply), bug)
                self.failures[self.partition_of[node]] = failure
        elif (sender, reply.metadata.run_id) != (node, request.metadata.run_id):
            self.refuse({node: f"the reply is node {sender}'s, of run {reply.metadata.run_id}"})
            return
        if reason := self._fault(reply, self.partition_of[node]):
            self.refuse({node: reason})
            return
        self.bytes_up += records.size(records.network_in(reply.content))
        self.accounts.append(records.figures(reply.content))
        yield reply


def fault(
    reply: Message,
    like: ArrayRecord,
    partition: int,
    *,
    trained: bool = True,
    layers: int | None = None,
) -> str | None:
    """Say in one line why a reply can't be used; None where it can.

    Used are replies with one network, one set of figures, the signals if they were asked for, and
    nothing else; the network has exactly the tensors of `like`, by name, dtype and shape, all of
    them finite; the figures are those that our clients send, counts as whole numbers.

    Args:
        reply: what a client sent.
        like: the tensors that it should send.
        partition: the share that this client holds.
        trained: whether it should tell of its training, or of its images only.
        layers: of how many layers it should bring signals; None: of none.
    """
    if reply.has_error():
        return records.reason(reply)
    arrays, metrics = reply.content.get(records.ARRAYS), reply.content.get(records.METRICS)
    kinds = {records.ARRAYS: ArrayRecord, records.METRICS: MetricRecord}
    kinds |= {} if layers is None else {records.SIGNALS: MetricRecord}
    if {key: type(record) for key, record in reply.content.items()} != kinds:
        return f"reply holds {sorted(reply.content)}, expected {' and '.join(kinds)}"
    counts, measures = (records.COUNTS, records.MEASURES) if trained else ((), ())
    odd = _odd_figure(metrics, partition, counts, measures) or _odd_tensors(arrays, like)  # pyrefly: ignore
    return odd or (None if layers is None else _odd_signals(reply.content, layers))


def _odd_signals(content: RecordDict, layers: int) -> str | None:
    record: dict = dict(content[records.SIGNALS])
    if record.keys() != (expected := {records.IMAGES, *records.LAYER}):
        return f"signals {sorted(record.keys() ^ expected)[:3]} are missing or unknown"
    images, held = record[records.IMAGES], records.figures(content)["held"]
    if not isinstance(images, int) or not 1 <= images <= held:
        return f"signals: {records.IMAGES}={images!r}, expected a whole number from 1 to {held}"
    for key in records.LAYER:
        values = record[key]
        if not isinstance(values, list) or len(values) != layers:
            found = f"{len(values)} values" if isinstance(values, list) else repr(values)
            return f"signals: {key} is {found}, expected {layers} numbers"
        most = 1 if key == "dead" else math.inf
        if odd := [v for v in values if v < 0 or v > most]:  # NaN stands for what there is not
            return f"signals: {key}={odd[0]:g}, expected a number from 0 to {most:g}"
    return None


def _odd_figure(
    metrics: MetricRecord, partition: int, counts: Sequence[str], measures: Sequence[str]
) -> str | None:
    expected = {records.PARTITION, records.WEIGHT, *counts, *measures}
    if metrics.keys() != expected:
        return f"figures {sorted(metrics.keys() ^ expected)[:3]} are missing or unknown"
    if (found := metrics[records.PARTITION]) != partition:
        return f"{records.PARTITION}={found!r}, expected {partition}"
    for name, least in {records.WEIGHT: 1, **dict.fromkeys(counts, 0)}.items():
        value = metrics[name]
        if not isinstance(value, int) or value < least:
            return f"{name}={value!r}, expected a whole number from {least} up"
    for name in records.RIGHT if counts else ():
        if metrics[name] > metrics["held-out"]:  # pyrefly: ignore
            return f"{name}={metrics[name]} is more than held-out={metrics['held-out']}"
    for name in measures:
        if not isinstance(metrics[name], int | float):
            return f"{name}={metrics[name]!r}, expected a number"
    return None


def _odd_tensors(arrays: ArrayRecord, like: ArrayRecord) -> str | None:
    if arrays.keys() != like.keys():
        return f"tensors {sorted(arrays.keys() ^ like.keys())[:3]} are missing or unknown"
    for name, array in arrays.items():
        try:
            found = npy.unpack(array)
        except Exception as error:
            return f"{name} can't be read: {in_words(error)}"
        if npy.begin(array) != npy.begin(like[name]):
            wanted = npy.unpack(like[name])
            if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
                return (
                    f"{name} is {found.dtype} {found.shape}, expected {wanted.dtype} {wanted.shape}"
                )
        if not np.isfinite(found).all():
            return f"{name} holds values that are not finite"
    return None
