"""One round after another: ask clients, check and fold their replies, evaluate, commit."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl import evaluation, flat, fleet, memory, wire
from fl.config import Experiment
from fl.data import Split, load, share, validation
from fl.journal import Checkpoint, Journal
from fl.nn import BatchNorm, moments, statistics
from fl.settings import ConfigError
from fl.signals import Watch, Watcher
from strategies.mean import Mean

REPLY_SECONDS = 3600.0
"""How long the server waits for the clients of a round."""


@runtime_checkable
class KeepsClientStates(Protocol):
    """A grid whose clients' states live in this process and can be saved with a checkpoint."""

    def changed_states(self) -> Mapping[int, RecordDict]:
        """Return the states, by partition id, of clients that trained since the last call."""
        ...

    def restore_states(self, states: Mapping[int, RecordDict]) -> None:
        """Give clients, by partition id, the states that they had."""
        ...


@dataclass
class Replies:
    """The replies of a round as they are checked: a stream of good ones, and an account of all."""

    like: ArrayRecord
    """The tensors that each should hold."""
    partition_of: Mapping[int, int]
    trained: bool = True
    """Whether they are of training, or only bring statistics."""
    layers: int | None = None
    """Of how many layers each should bring signals; None: of none."""
    accounts: list[dict] = field(default_factory=list)
    refused: list[dict] = field(default_factory=list)
    bytes_up: int = 0

    def good(self, replies: Iterable[Message], asked: list[int]) -> Iterator[Message]:
        """Yield the usable replies in the order in which clients were asked, whenever they came."""
        early: dict[int, Message] = {}
        waiting = list(asked)
        for reply in replies:
            early[reply.metadata.src_node_id] = reply
            while waiting and waiting[0] in early:
                yield from self._checked(early.pop(waiting.pop(0)))
        for node in waiting:
            if node in early:
                yield from self._checked(early[node])
            else:
                self.lose({node: f"no reply within {REPLY_SECONDS:.0f} s"})

    def lose(self, reasons: Mapping[int, str]) -> None:
        """Take note of nodes that will not reply, and why."""
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

    def _own_accuracy(self, right: str) -> float | None:
        """Return the accuracy on all clients' held-out images; None where there are none."""
        total = sum(account["held_out"] for account in self.accounts)
        return sum(account[right] for account in self.accounts) / total if total else None

    def _checked(self, reply: Message) -> Iterator[Message]:
        node = reply.metadata.src_node_id
        expected = {"trained": self.trained, "layers": self.layers}
        if reason := wire.fault(reply, self.like, self.partition_of[node], **expected):
            self.lose({node: reason})
            return
        self.bytes_up += wire.size(wire.network_in(reply.content))
        self.accounts.append(wire.figures(reply.content))
        yield reply


class Rounds:
    """Plays rounds: each takes a checkpoint to the next, and makes it permanent."""

    def __init__(
        self,
        grid: Grid,
        knobs: Experiment,
        journal: Journal,
        network: flat.FlatNetwork,
        strategy: Strategy,
        nodes: Mapping[int, int],
    ) -> None:
        self.grid, self.knobs, self.journal = grid, knobs, journal
        self.network, self.strategy = network, strategy
        self.nodes = nodes
        self.partition_of = {node: partition for partition, node in nodes.items()}
        self.watcher = Watcher(knobs, network)
        self.dataset = load(knobs.data.name)
        self.validation = self.dataset.train.only(validation(knobs))

    def begin(self) -> Checkpoint:
        """Evaluate and commit the initial network as round 0."""
        model = wire.unpack_arrays(wire.pack_network(self.network.state()))
        checkpoint = Checkpoint(round=0, model=model)
        watch = self.watcher.round(0, model)
        begun = time.perf_counter()
        line = {"round": 0, **self._evaluate(model, begun), "train_loss": None, "asked": 0}
        line |= Replies(wire.pack_arrays(model), self.partition_of).summary()
        line |= {"train_seconds": 0.0, "simulated_seconds": None, "bytes_down": 0}
        self.journal.commit(line, [], checkpoint, {}, watch.lines())
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Give clients the states that they had when the checkpoint was written."""
        norms = any(isinstance(layer, BatchNorm) for layer in self.network.module.modules())
        local = norms and self.knobs.state.bn == "local"
        if local and self.journal.clients() and not checkpoint.clients:
            raise ConfigError(
                "state.bn=local: this checkpoint has no clients' statistics, since Flower keeps "
                "them and forgets them with the run; start anew in another folder"
            )
        if isinstance(self.grid, KeepsClientStates):
            states = {
                partition: memory.unpack_state(*self.journal.client_state(partition, written))
                for partition, written in checkpoint.clients.items()
            }
            self.grid.restore_states(states)

    def play(self, checkpoint: Checkpoint) -> tuple[Checkpoint, dict]:
        """Play one round and commit it; returns the new checkpoint and the round's line."""
        begun, number = time.perf_counter(), checkpoint.round + 1
        arrays = wire.pack_arrays(checkpoint.model)
        watch = self.watcher.round(number, checkpoint.model)
        messages = list(self.strategy.configure_train(number, arrays, watch.config, self.grid))
        works = {node: self._work(node, number) for node in map(_receiver, messages)}
        replies = Replies(arrays, self.partition_of, layers=watch.layers)
        replies.lose({node: work.lost for node, work in works.items() if work.lost})
        sent = [message for message in messages if not works[_receiver(message)].lost]
        coming = self.grid.send_and_receive(sent, timeout=REPLY_SECONDS) if sent else ()
        mean, figures = self.strategy.aggregate_train(
            number, watch.over(replies.good(coming, [_receiver(message) for message in sent]))
        )
        model = wire.unpack_arrays(mean) if mean is not None else checkpoint.model
        sent_down = wire.size(arrays) * len(sent)
        state = self.knobs.state
        if state.bn == "recalibrate" and replies.accounts and not state.fixed_in(number):
            model = self._recalibrated(number, model, replies)
            sent_down += wire.size(arrays) * len(replies.accounts)
        trained = time.perf_counter()
        line = {"round": number, **self._evaluate(model, begun)}
        line |= {
            "train_loss": wire.finite(figures["loss"]) if figures is not None else None,
            "asked": len(messages),
            **replies.summary(),
            "train_seconds": trained - begun,
            "simulated_seconds": fleet.round_seconds(self.knobs, works.values()),
            "bytes_down": sent_down,
        }
        return self._commit(checkpoint, model, line, replies.accounts, watch), line

    def _recalibrated(
        self, number: int, model: Mapping[str, np.ndarray], replies: Replies
    ) -> dict[str, np.ndarray]:
        """Return a network with BatchNorm's statistics as the round's clients now measure them."""
        module = self.network.module
        like = wire.pack_arrays({name: model[name] for name in statistics(module)})
        config = ConfigRecord({wire.ROUND: number})
        content = RecordDict({wire.ARRAYS: wire.pack_arrays(model), wire.CONFIG: config})
        asked = [self.nodes[account["partition"]] for account in replies.accounts]
        questions = [Message(content, node, wire.RECALIBRATE) for node in asked]
        coming = self.grid.send_and_receive(questions, timeout=REPLY_SECONDS)
        measured, pooled = Replies(like, self.partition_of, trained=False), Mean(moments(module))
        for reply in measured.good(coming, asked):
            arrays = wire.unpack_arrays(wire.network_in(reply.content))
            pooled.add(arrays, float(measured.accounts[-1]["held"]))
        replies.bytes_up += measured.bytes_up
        replies.refused += [
            {**refusal, "reason": f"statistics: {refusal['reason']}"}
            for refusal in measured.refused
        ]
        return {**model, **(pooled.result() if pooled.total else {})}

    def _commit(
        self,
        before: Checkpoint,
        model: Mapping[str, np.ndarray],
        line: dict,
        accounts: list[dict],
        watch: Watch,
    ) -> Checkpoint:
        """Make a round permanent and return its checkpoint."""
        states, number = self._states(), line["round"]
        written = {**before.clients, **dict.fromkeys(states, number)}
        after = Checkpoint(number, model, clients=written)
        numbered = [{**account, "round": number} for account in accounts]
        self.journal.commit(line, numbered, after, states, watch.lines())
        return after

    def _work(self, node: int, number: int) -> fleet.Work:
        """Return what the fleet's schedule says of a client."""
        partition = self.partition_of[node]
        images = len(share({"partition-id": partition}, self.knobs).train)
        return fleet.work(self.knobs, partition, number, images)

    def _evaluate(self, model: Mapping[str, np.ndarray], begun: float) -> dict:
        """Return the figures of a network on the server's images, and the seconds so far."""
        start = time.perf_counter()
        self.network.load(wire.unpack_network(wire.pack_arrays(model)))
        loss, accuracy = self._score(self.dataset.test)
        kept = self._score(self.validation)[1] if len(self.validation) else None
        end = time.perf_counter()
        return {
            "test_loss": wire.finite(loss),
            "test_accuracy": accuracy,
            "validation_accuracy": kept,
            "seconds": end - begun,
            "eval_seconds": end - start,
        }

    def _score(self, split: Split) -> tuple[float, float]:
        """Return the mean loss in nats and the accuracy on a split."""
        loss, correct = evaluation.evaluate(self.network, self.dataset, split)
        return loss, correct / len(split)

    def _states(self) -> dict[int, tuple[Mapping[str, np.ndarray], str]]:
        """Return what the clients of this round want to remember, ready to be written."""
        if not isinstance(self.grid, KeepsClientStates):
            return {}
        return {p: memory.pack_state(state) for p, state in self.grid.changed_states().items()}


def _receiver(message: Message) -> int:
    return message.metadata.dst_node_id
