"""The replies of a round: each is checked before it touches the network, and accounted for."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fl import fleet
from fl.messages import extras, records
from fl.messages.flower_internals import NODE_IS_GONE
from fl.reproducibility.errors import as_told, in_words
from fl.server.failures import Failure
from fl.tasks import PLAIN, Metric
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
    vectors: ArrayRecord | None = None
    """The vectors that each should bring, as an example; None: none."""
    truths: Mapping[int, records.Truth] = field(default_factory=dict)
    """Partition id -> what the server knows of this client."""
    answers: int = 1
    """How many answers of a network an example takes, at most: 1, or as many as it has pixels."""
    metric: Metric = PLAIN.primary
    """The primary metric, of which each brings what it sums up of held-out images."""
    scores: list[list[Tensor]] = field(default_factory=list)
    """These sums, before and after training, where they are not counts of right answers."""
    accounts: list[dict] = field(default_factory=list)
    refused: list[dict] = field(default_factory=list)
    silent: dict[int, str] = field(default_factory=dict)
    """Nodes that did not reply, or are gone."""
    doubted: dict[int, str] = field(default_factory=dict)
    """Nodes that told what is not as they said when they were asked who they are."""
    failures: dict[int, Failure] = field(default_factory=dict)
    """Partition id -> the exception that the client answered with."""
    bytes_up: int = 0

    def good(self, replies: Iterable[Message], sent: Sequence[Message]) -> Iterator[Message]:
        """Yield the usable replies in the order of the requests, whenever they came.

        A reply belongs to the request that it names, whoever it says that it is from: a SuperLink
        answers for a node that is gone. One that names no request of this round is refused.
        """
        early, turn, places = dict[int, Message](), 0, dict[str, int]()
        for reply in replies:
            name = reply.metadata.reply_to_message_id
            if name not in places:  # requests get their names from the grid, on their way
                places = {m.metadata.message_id: at for at, m in enumerate(sent)}
            place = places.get(name)
            if place is None or place < turn or place in early:
                self._foreign(reply)
                continue
            early[place] = reply
            del reply  # else two are in memory while the next one is made
            while turn in early:
                yield from self._checked(sent[turn], early.pop(turn))
                turn += 1
        for place in range(turn, len(sent)):
            if place in early:
                yield from self._checked(sent[place], early.pop(place))
            else:
                node = sent[place].metadata.dst_node_id
                self.silent[node] = f"no reply within {self.seconds:.0f} s"
                self.refuse({node: self.silent[node]})

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Take note of nodes whose replies are missing or useless, and why."""
        self.refused += [
            {"partition": self.partition_of[node], "reason": as_told(reason)}
            for node, reason in reasons.items()
        ]

    def summary(self) -> dict:
        """Return the round's figures that come from its replies."""
        return {
            "replied": len(self.accounts),
            "refused": self.refused,
            "images": sum(account["examples"] for account in self.accounts),
            "steps": (steps := sum(account["steps"] for account in self.accounts)),
            "clipped_share": self._clipped() / steps if steps else None,
            "single_value_steps": sum(a["single_value_steps"] for a in self.accounts),
            "bytes_up": self.bytes_up,
            f"global_{self.metric.name}_held_out": self._held_out(0),
            f"personal_{self.metric.name}_held_out": self._held_out(1),
            **{f"personal_{self.metric.name}_{k}": v for k, v in self._own_scores().items()},
        }

    def take_over(self, others: "Replies", what: str) -> None:
        """Add the faults and the bytes of replies about something else to the round's account."""
        self.bytes_up += others.bytes_up
        self.silent |= others.silent
        self.failures |= others.failures
        self.refused += [
            {**refusal, "reason": f"{what}: {refusal['reason']}"} for refusal in others.refused
        ]

    def _clipped(self) -> float:
        """Return how many steps were clipped, of which one may be in part."""
        return sum(account["steps"] * account["clipped_share"] for account in self.accounts)

    def _held_out(self, after: int) -> float | None:
        """Return the primary metric on all clients' held-out images; None where there are none."""
        if not self.metric.counts_right:
            return extras.pooled(self.metric, [pair[after] for pair in self.scores])
        right = ("global_correct", "personal_correct")[after]
        total = sum(account["held_out"] for account in self.accounts)
        return sum(account[right] for account in self.accounts) / total if total else None

    def _own_scores(self) -> dict[str, float | None]:
        """Return what the clients' own networks come to on their held-out images."""
        held = [account for account in self.accounts if account["held_out"]]
        if not held:
            return dict.fromkeys(extras.OVER_CLIENTS)
        if self.metric.counts_right:
            values = [account["personal_correct"] / account["held_out"] for account in held]
        else:
            values = [account[f"personal_{self.metric.name}"] for account in held]
        return extras.over_clients(values, self.metric)

    def _fault(self, reply: Message, partition: int) -> str | None:
        """Say why a reply can't be used; None where it can. No reply is worth the round."""
        try:
            wanted = self.vectors is not None and not reply.has_error()
            sent = reply.content.pop(records.VECTORS, None) if wanted else None
            kind = {"trained": self.trained, "layers": self.layers}
            found = fault(reply, self.like, partition, **kind, right=self.metric.counts_right)  # pyrefly: ignore
            found = found or self._odd_vectors(reply, sent) or self._untrue(reply, partition)
            return found or self._too_far(reply)
        except Exception as error:
            return f"it can't be read: {in_words(error)}"

    def _untrue(self, reply: Message, partition: int) -> str | None:
        """Compare what a client tells with what the server knows of it."""
        if (truth := self.truths.get(partition)) is None:
            return None
        told: dict = dict(reply.content[records.METRICS])
        found = truth.contradicted(told, self.trained)
        more = told[records.WEIGHT] > truth.images or told.get("held-out", 0) > truth.held_out
        if found and more:
            self.doubted[reply.metadata.src_node_id] = found
        if found or not self.trained or self.metric.counts_right:
            return found
        return extras.odd_sums(reply.content, self.metric, told["held-out"] * self.answers)

    def _odd_vectors(self, reply: Message, sent: object) -> str | None:
        """Put vectors back into a reply that they were taken from, if they are as expected."""
        if self.vectors is not None and isinstance(sent, ArrayRecord):
            reply.content[records.VECTORS] = sent
            return npy.odd(sent, self.vectors)
        return None if self.vectors is None else f"reply lacks {records.VECTORS}"

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
        self.bytes_up += records.carried(reply.content)
        self.accounts.append(records.figures(reply.content))
        if self.trained and not self.metric.counts_right:
            self.scores.append(records.scores(reply.content))
            told = [extras.pooled(self.metric, [sums]) for sums in self.scores[-1]]
            names = (f"{name}_{self.metric.name}" for name in records.SCORED)
            self.accounts[-1] |= dict(zip(names, told, strict=True))
        yield reply


def fault(
    reply: Message,
    like: ArrayRecord,
    partition: int,
    *,
    trained: bool = True,
    layers: int | None = None,
    right: bool = True,
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
        right: whether it should count right answers, or else bring sums of another metric.
    """
    if reply.has_error():
        return records.reason(reply)
    arrays, metrics = reply.content.get(records.ARRAYS), reply.content.get(records.METRICS)
    kinds = {records.ARRAYS: ArrayRecord, records.METRICS: MetricRecord}
    kinds |= {} if layers is None else {records.SIGNALS: MetricRecord}
    counts, measures = (records.COUNTS, records.MEASURES) if trained else ((), ())
    if trained and not right:
        kinds |= {records.SCORES: MetricRecord}
        counts = tuple(name for name in counts if name not in records.RIGHT)
    if {key: type(record) for key, record in reply.content.items()} != kinds:
        return f"reply holds {sorted(reply.content)}, expected {' and '.join(kinds)}"
    odd = _odd_figure(metrics, partition, counts, measures) or npy.odd(arrays, like)  # pyrefly: ignore
    odd = odd or (None if layers is None else extras.odd_signals(reply.content, layers))
    return odd or (extras.odd_scores(reply.content) if records.SCORES in kinds else None)


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
    for name in set(records.RIGHT).intersection(counts):
        if metrics[name] > metrics["held-out"]:  # pyrefly: ignore
            return f"{name}={metrics[name]} is more than held-out={metrics['held-out']}"
    for name in measures:
        if not isinstance(metrics[name], int | float):
            return f"{name}={metrics[name]!r}, expected a number"
    return None


@dataclass(frozen=True)
class Selected:
    """The clients of a round."""

    sent: Sequence[Message]
    """The requests to those that are not lost by the fleet's schedule."""
    works: Sequence[fleet.Work]
    """What the schedule says of everyone who was asked."""
    replies: Replies
    present: Mapping[str, object]
    """How many could be asked, and why the others couldn't."""

    @property
    def bytes_down(self) -> int:
        """Bytes of the tensors that go to clients; requests of a round carry equally many."""
        return records.carried(self.sent[0].content) * len(self.sent) if self.sent else 0

    def summary(self) -> dict:
        """Return the round's figures that come from its clients, once their replies are in."""
        return {"asked": len(self.works), **self.replies.summary(), **self.present}
