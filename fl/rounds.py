"""One round after another: ask clients, check and fold their replies, evaluate, commit."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl import evaluation, flat, fleet, memory, wire
from fl.config import Experiment
from fl.data import Dataset, Split, validation
from fl.federation import Federation
from fl.journal import Checkpoint, Journal
from fl.nn import moments, statistics
from fl.replies import Replies
from fl.settings import ConfigError
from fl.signals import Watch, Watcher
from strategies.mean import Mean


@runtime_checkable
class KeepsClientStates(Protocol):
    """A grid whose clients' states live in this process and can be saved with a checkpoint."""

    def changed_states(self) -> Mapping[int, RecordDict]:
        """Return the states, by partition id, of clients that trained since the last call."""
        ...

    def restore_states(self, states: Mapping[int, RecordDict]) -> None:
        """Give clients, by partition id, the states that they had."""
        ...


class Rounds:
    """Plays rounds: each takes a checkpoint to the next, and makes it permanent."""

    def __init__(
        self,
        grid: Grid,
        knobs: Experiment,
        journal: Journal,
        network: flat.FlatNetwork,
        strategy: Strategy,
        federation: Federation,
        dataset: Dataset,
    ) -> None:
        self.grid, self.knobs, self.journal = grid, knobs, journal
        self.network, self.strategy = network, strategy
        self.federation, self.dataset = federation, dataset
        self.watcher = Watcher(knobs, network)
        self.validation = self.dataset.train.only(validation(knobs))

    def begin(self) -> Checkpoint:
        """Evaluate and commit the initial network as round 0."""
        model = wire.unpack_arrays(wire.pack_network(self.network.state()))
        checkpoint = Checkpoint(round=0, model=model)
        watch = self.watcher.round(0, model)
        begun = time.perf_counter()
        line = {"round": 0, **self._evaluate(model, begun), "train_loss": None, "asked": 0}
        line |= self._replies(wire.pack_arrays(model)).summary()
        line |= self._present()
        line |= {"train_seconds": 0.0, "simulated_seconds": None, "bytes_down": 0}
        self.journal.commit(line, [], checkpoint, {}, watch.lines())
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Give clients the states that they had when the checkpoint was written."""
        local = self.network.norms and self.knobs.state.bn == "local"
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
        self.federation.ready()
        present = self._present()
        arrays = wire.pack_arrays(checkpoint.model)
        watch = self.watcher.round(number, checkpoint.model)
        messages = list(self.strategy.configure_train(number, arrays, watch.config, self.grid))
        replies = self._replies(arrays, layers=watch.layers)
        asked = {node: replies.partition_of[node] for node in map(_receiver, messages)}
        works = {node: self._work(partition, number) for node, partition in asked.items()}
        replies.lose({node: work.lost for node, work in works.items() if work.lost})
        sent = [message for message in messages if not works[_receiver(message)].lost]
        coming = self._answers(sent) if sent else ()
        mean, figures = self.strategy.aggregate_train(
            number, watch.over(replies.good(coming, sent))
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
            **present,
            "train_seconds": trained - begun,
            "simulated_seconds": fleet.round_seconds(self.knobs, works.values()),
            "bytes_down": sent_down,
        }
        for node, reason in replies.silent.items():
            self.federation.lose(node, reason)
        return self._commit(checkpoint, model, line, replies.accounts, watch), line

    def _answers(self, sent: Sequence[Message]) -> Iterable[Message]:
        return self.grid.send_and_receive(sent, timeout=self.knobs.devices.reply)

    def _replies(self, like: ArrayRecord, **expected: object) -> Replies:
        partition_of = {node: partition for partition, node in self.federation.nodes.items()}
        bounds = {"seconds": self.knobs.devices.reply, "most": self.knobs.strategy.max_norm}
        return Replies(like, partition_of, **bounds, **expected)  # pyrefly: ignore

    def _present(self) -> dict:
        """Return how many clients can be asked, and why the others can't."""
        return {"devices": len(self.federation.nodes), "left_out": self.federation.absent()}

    def _recalibrated(
        self, number: int, model: Mapping[str, np.ndarray], replies: Replies
    ) -> dict[str, np.ndarray]:
        """Return a network with BatchNorm's statistics as the round's clients now measure them."""
        module = self.network.module
        like = wire.pack_arrays({name: model[name] for name in statistics(module)})
        config = ConfigRecord({wire.ROUND: number})
        content = RecordDict({wire.ARRAYS: wire.pack_arrays(model), wire.CONFIG: config})
        asked = [self.federation.nodes[account["partition"]] for account in replies.accounts]
        questions = [Message(content, node, wire.RECALIBRATE) for node in asked]
        measured, pooled = self._replies(like, trained=False), Mean(moments(module))
        for reply in measured.good(self._answers(questions), questions):
            arrays = wire.unpack_arrays(wire.network_in(reply.content))
            pooled.add(arrays, float(measured.accounts[-1]["held"]))
        replies.bytes_up += measured.bytes_up
        replies.silent |= measured.silent
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

    def _work(self, partition: int, number: int) -> fleet.Work:
        """Return what the fleet's schedule says of a client."""
        images = self.federation.members[partition].images
        return fleet.work(self.knobs, partition, number, max(images, 1))

    def _evaluate(self, model: Mapping[str, np.ndarray], begun: float) -> dict:
        """Return the figures of a network on the server's images, and the seconds so far."""
        start = time.perf_counter()
        self.network.load(model)
        loss, accuracy = self._score(self.dataset.test)
        kept = self._score(self.validation)[1]
        end = time.perf_counter()
        return {
            "test_loss": wire.finite(loss),
            "test_accuracy": accuracy,
            "validation_accuracy": kept,
            "seconds": end - begun,
            "eval_seconds": end - start,
        }

    def _score(self, split: Split) -> tuple[float | None, float | None]:
        """Return the mean loss in nats and the accuracy on a split; None without examples."""
        if not len(split):
            return None, None
        loss, correct = evaluation.evaluate(self.network, self.dataset, split)
        return loss, correct / len(split)

    def _states(self) -> dict[int, tuple[Mapping[str, np.ndarray], str]]:
        """Return what the clients of this round want to remember, ready to be written."""
        if not isinstance(self.grid, KeepsClientStates):
            return {}
        return {p: memory.pack_state(state) for p, state in self.grid.changed_states().items()}


def _receiver(message: Message) -> int:
    return message.metadata.dst_node_id
