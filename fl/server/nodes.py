"""The devices of a federation: who is there, what each holds, and why others are left out.

A device is known by its partition id; Flower's node ids come and go. Before a round, whoever is
connected and not known yet is asked who it is. Whoever can't be used is left out with the reason,
and asked again later, ever more seldom, so that a device that is put right is taken again. No wait
is without a bound.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl.config import Experiment
from fl.data import Form
from fl.fleet import Work, available
from fl.messages import node_info, records
from fl.messages.claims import Claims
from fl.messages.node_info import NodeInfo
from fl.reproducibility.errors import as_told
from fl.reproducibility.provenance import code_hash
from fl.server.failures import Failure, RunFailed
from fl.tasks.metrics import Part
from fl.training.loop import Evaluation

ANSWER_SECONDS = 120.0
"""How long a device may take to say who it is: to start Python and to read its images. A second
more for each device that is asked, since a simulation asks one after another."""
CLOCK_SECONDS = 300.0
"""How far a device's clock may be from the server's; Flower refuses signatures older than that."""

_log = logging.getLogger(__name__)


class FederationError(RunFailed):
    """The devices that answered are not the federation that the experiment needs."""


@dataclass
class UnavailableNode:
    """A node that is connected and can't be asked to train."""

    reason: str
    partition: int | None = None
    trace: str = ""
    """The traceback of a simulated client's exception."""
    silent: bool = False
    """Whether it did not answer, as one that still trains for a run that was ended."""
    failures: int = 0
    pause: int = 0
    """How many times it is passed over before it is asked again."""


class Runtime:
    """The place where clients run: Flower's Grid, and what it offers a server besides.

    This one offers nothing besides, as real devices do. Simulations override it.

    Args:
        grid: carries messages.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    @property
    def grid(self) -> Grid:
        """What carries messages to clients and back."""
        return self._grid

    def changed_states(self) -> Mapping[int, RecordDict]:
        """Return the states, by partition id, of clients that trained since the last call."""
        return {}

    def restore_states(self, states: Mapping[int, RecordDict]) -> None:
        """Give clients, by partition id, the states that they had."""

    def when_busy(self, evaluation: Evaluation, finish: Callable[[Iterable[Part]], None]) -> None:
        """Evaluate a round's network, and call what finishes the round with what that came to.

        That is done at once, or while clients are at work on the next round.
        """
        with self.evaluating():
            parts = list(evaluation.parts())
        finish(parts)

    def flush(self) -> None:
        """Call what was put off and is still to be called."""

    def evaluating(self) -> AbstractContextManager[object]:
        """Return what a network is evaluated within: nothing, or what does that faster."""
        return nullcontext()


class Nodes:
    """Who can be asked to train.

    Args:
        grid: where the nodes are.
        knobs: how many devices there are to be, and how long to wait for them.
        form: of the examples that all must hold; None: that of most of those who are there first.
    """

    def __init__(self, grid: Grid, knobs: Experiment, form: Form | None = None) -> None:
        self.grid, self.knobs, self.form = grid, knobs, form
        self.nodes: dict[int, int] = {}
        """Partition id -> node id of everyone who can be asked."""
        self.members: dict[int, NodeInfo] = {}
        """Partition id -> what it said of itself."""
        self._unavailable: dict[int, UnavailableNode] = {}
        self._claims = Claims(knobs)

    def gather(self) -> None:
        """Wait until the federation is complete, or for `devices.wait` seconds if it is not.

        Raises:
            FederationError: fewer than `devices.least` can be asked, or not all where that is 0.
        """
        clients = self.knobs.partition.clients
        least = self.knobs.devices.least or clients
        self._wait(clients, least)
        if self.form is None:
            self._agree()
        if len(self.nodes) < least:
            raise self._shortage(least)

    def ready(self) -> None:
        """Look who is there now, and wait for `devices.least` of them, or for one.

        Raises:
            FederationError: they did not come in `devices.wait` seconds.
        """
        least = self.knobs.devices.least or 1
        self._wait(least, least)

    def mark_unavailable(self, node: int, reason: str) -> None:
        """Take note that a node does not answer: it is not asked to train until it does."""
        partition = next((p for p, n in self.nodes.items() if n == node), None)
        if partition is not None:
            self._forget(partition)
            self._leave_out(node, UnavailableNode(reason, partition))

    def available(self, number: int) -> list[int]:
        """Return the clients, sorted, that can be asked in a round and are there."""
        return [client for client in available(self.knobs, number) if client in self.nodes]

    def truth(self, partition: int, work: Callable[[int], Work]) -> records.Truth:
        """Return what is known of a client before it replies. A simulated one is not timed."""
        told = self.members[partition]
        longest = math.inf if told.source == "dealt" else self.knobs.devices.reply
        return records.Truth(told.images, told.held_out, work, longest)

    @property
    def simulated(self) -> bool:
        """Whether all clients are dealt their images here, so that none is a device."""
        return all(told.source == "dealt" for told in self.members.values())

    def absent(self) -> list[dict]:
        """Return the clients that can't be asked, and nodes that are no client, with reasons."""
        why = {s.partition: s.reason for s in self._unavailable.values()}
        missing = [p for p in range(self.knobs.partition.clients) if p not in self.nodes]
        lines = [{"partition": p, "reason": why.get(p, "not connected")} for p in missing]
        return lines + [
            {"partition": None, "reason": f"node {node}: {unavailable.reason}"}
            for node, unavailable in sorted(self._unavailable.items())
            if unavailable.partition is None
        ]

    def _wait(self, wanted: int, least: int) -> None:
        deadline = time.monotonic() + self.knobs.devices.wait
        while True:
            begun = time.monotonic()  # asking takes time: whoever came meanwhile is looked for
            self._look()
            if len(self.nodes) >= wanted or self._hopeless() or begun >= deadline:
                break
            time.sleep(1)
        if len(self.nodes) < least:
            raise self._shortage(least)

    def _hopeless(self) -> bool:
        """Return whether enough nodes are there and none of them can be used: a common cause."""
        useless = [one for one in self._unavailable.values() if not one.silent]
        return not self.nodes and len(useless) >= self.knobs.partition.clients

    def _shortage(self, least: int) -> FederationError:
        clients, devices = self.knobs.partition.clients, self.knobs.devices
        missing = [str(p) for p in range(clients) if p not in self.nodes]
        reasons = sorted({unavailable.reason for unavailable in self._unavailable.values()})
        traces = [one.trace for one in self._unavailable.values() if one.trace]
        text = "; ".join(
            [
                f"{len(self.nodes)} of partition.clients={clients} devices can be asked, {least} "
                f"are needed (devices.least={devices.least}, devices.wait={devices.wait:g} s)",
                f"missing: {', '.join(missing[:10])}{', …' * (len(missing) > 10)}",
                *(f"{len(self._unavailable)} left out, among them: {why}" for why in reasons[:3]),
                f"a simulation takes --federation-config num-supernodes={clients}",
            ]
        )
        return FederationError(text, Failure(text, traces[0], bug=True).short if traces else "")

    def _look(self) -> None:
        """Part with nodes that are gone, and ask those that are new, or due again, who they are."""
        there = set(self.grid.get_node_ids())
        for partition in [p for p, node in self.nodes.items() if node not in there]:
            self._forget(partition)
        self._unavailable = {n: s for n, s in self._unavailable.items() if n in there}
        known, due = set(self.nodes.values()), []
        for node in sorted(there - known):
            unavailable = self._unavailable.get(node)
            if unavailable and unavailable.pause:
                unavailable.pause -= 1
            else:
                due.append(node)
        if due:
            self._ask(due)

    def _ask(self, nodes: Sequence[int]) -> None:
        questions = [Message(RecordDict(), node, records.WHO_ARE_YOU) for node in nodes]
        patience = ANSWER_SECONDS + len(nodes)
        replies = list(self.grid.send_and_receive(questions, timeout=patience))
        self._claims.look()
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for question in questions:
            node = question.metadata.dst_node_id
            self._meet(node, answers.get(question.metadata.message_id))

    def _meet(self, node: int, reply: Message | None) -> None:
        """Take a node into the federation, or leave it out."""
        if reply is None:
            reason = f"no answer within {ANSWER_SECONDS:.0f} s"
            return self._leave_out(node, UnavailableNode(reason, silent=True))
        try:
            told = node_info.read(reply)
        except ValueError as error:
            trace = records.trace(reply) if reply.has_error() else ""
            return self._leave_out(node, UnavailableNode(str(error), trace=trace))
        claims, claimed = self._claims, told.partition
        if reason := claims.of_another(node, claimed) or self._unfit(told) or claims.untrue(told):
            own = self._free(claims.partition(node, claimed))
            return self._leave_out(node, UnavailableNode(reason, own))
        self._unavailable.pop(node, None)
        self.nodes[told.partition], self.members[told.partition] = node, told
        return None

    def _unfit(self, told: NodeInfo) -> str | None:
        """Say why a device can't be used; None where it can."""
        clients, off = self.knobs.partition.clients, told.clock - time.time()
        if told.code != code_hash():
            return (
                f"it runs other code ({told.code[:8]}) than the server ({code_hash()[:8]}); "
                "see docs/guide/flower.md for simulations, docs/guide/devices.md for devices"
            )
        if not 0 <= told.partition < clients:
            return f"it is partition {told.partition}, expected 0 to {clients - 1}"
        if told.partition in self.nodes:
            return f"partition {told.partition} is there already; give each device its own"
        if not abs(off) <= CLOCK_SECONDS:  # nor is it, where its clock is no number
            return f"its clock is {abs(off):.0f} s {'fast' if off > 0 else 'slow'}; set its time"
        if self.form and told.form != self.form:
            return self._other_form(told.form)
        return None

    def _other_form(self, form: Form) -> str:
        return f"its examples are {form}, the federation's {self.form}; see data.classes"

    def _agree(self) -> None:
        """Choose the form of examples: what most devices hold; among equals, the first's."""
        forms = Counter(self.members[p].form for p in sorted(self.members))
        self.form = forms.most_common(1)[0][0]
        for partition, told in sorted(self.members.items()):
            if told.form != self.form:
                self.mark_unavailable(self.nodes[partition], self._other_form(told.form))

    def _forget(self, partition: int) -> None:
        del self.nodes[partition], self.members[partition]

    def _free(self, partition: int | None) -> int | None:
        """Return a partition if no member has it and it exists, else None."""
        exists = partition is not None and 0 <= partition < self.knobs.partition.clients
        return partition if exists and partition not in self.nodes else None

    def _leave_out(self, node: int, unavailable: UnavailableNode) -> None:
        before, unavailable.reason = self._unavailable.get(node), as_told(unavailable.reason)
        unavailable.failures = before.failures + 1 if before else 0
        unavailable.pause = 2 ** min(unavailable.failures, 3) - 1
        if unavailable.partition is None and before:
            unavailable.partition = before.partition
        if before is None or before.reason != unavailable.reason:
            _log.warning("left out: node %s: %s", node, unavailable.reason)
        self._unavailable[node] = unavailable
