"""One round after another: ask clients, check and fold their replies, evaluate, commit."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl import fleet
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Dataset, Split, validation
from fl.messages import client_state, records
from fl.nn import moments, statistics
from fl.server.journal import Checkpoint, Journal
from fl.server.monitor import Watch, Watcher
from fl.server.nodes import Federation
from fl.server.replies import Replies
from fl.training import loop, parameters
from strategies.fedavg import Mean


@runtime_checkable
class KeepsClientStates(Protocol):
    """A grid whose clients' states live in this process and can be saved with a checkpoint."""

    def changed_states(self) -> Mapping[int, RecordDict]:
        """Return the states, by partition id, of clients that trained since the last call."""
        ...

    def restore_states(self, states: Mapping[int, RecordDict]) -> None:
        """Give clients, by partition id, the states that they had."""
        ...


@runtime_checkable
class WorksAhead(Protocol):
    """A grid whose clients begin when they are asked, not when their replies are read."""

    def at_work(self, messages: Iterable[Message]) -> AbstractContextManager[Iterator[Message]]:
        """Give what `send_and_receive` gives; clients are at work by then, and none is after."""
        ...


@dataclass(frozen=True)
class Played:
    """A round whose clients are done; it is neither evaluated nor permanent."""

    model: Mapping[str, np.ndarray]
    line: dict
    accounts: list[dict]
    watch: Watch


class Rounds:
    """Plays rounds, each from the network of the one before, and makes them permanent.

    The second can be done while clients are at the next round: `play` calls somebody who does it,
    at a time when all that is lost with this process is a round that nobody was told of.
    """

    def __init__(
        self,
        grid: Grid,
        knobs: Experiment,
        journal: Journal,
        network: parameters.FlatNetwork,
        strategy: Strategy,
        federation: Federation,
        dataset: Dataset,
    ) -> None:
        self.grid, self.knobs, self.journal = grid, knobs, journal
        self.network, self.strategy = network, strategy
        self.federation, self.dataset = federation, dataset
        self.watcher = Watcher(knobs, network)
        self.validation = self.dataset.train.only(validation(knobs))
        self.written: dict[int, int] = {}
        """As of a `Checkpoint`."""

    def begin(self) -> Played:
        """Return the initial network as round 0."""
        model = records.unpack_arrays(records.pack_network(self.network.state()))
        line = {"round": 0, "train_loss": None, "asked": 0}
        line |= self._replies(records.pack_arrays(model)).summary()
        line |= self._present()
        line |= {"train_seconds": 0.0, "simulated_seconds": None, "bytes_down": 0}
        return Played(model, line, [], self.watcher.round(0, model))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Give clients the states that they had when the checkpoint was written."""
        local = self.network.norms and self.knobs.state.bn == "local"
        if local and self.journal.clients() and not checkpoint.clients:
            raise ConfigError(
                "state.bn=local: this checkpoint has no clients' statistics, since Flower keeps "
                "them and forgets them with the run; start anew in another folder"
            )
        self.written = dict(checkpoint.clients)
        if isinstance(self.grid, KeepsClientStates):
            states = {
                partition: client_state.unpack_state(*self.journal.client_state(partition, written))
                for partition, written in checkpoint.clients.items()
            }
            self.grid.restore_states(states)

    def play(
        self, number: int, start: Mapping[str, np.ndarray], meanwhile: Callable[[], None]
    ) -> Played:
        """Play a round.

        Args:
            number: of the round.
            start: the network as the round before has left it.
            meanwhile: is called as soon as clients are at work; where nobody is before replies are
                read, or somebody may have to be waited for, first of all.
        """
        if not isinstance(self.grid, WorksAhead):
            meanwhile()
        begun = time.perf_counter()
        self.federation.ready()
        present = self._present()
        arrays = records.pack_arrays(start)
        watch = self.watcher.round(number, start)
        messages = list(self.strategy.configure_train(number, arrays, watch.config, self.grid))
        replies = self._replies(arrays, layers=watch.layers)
        asked = {node: replies.partition_of[node] for node in map(_receiver, messages)}
        works = {node: self._work(partition, number) for node, partition in asked.items()}
        replies.lose({node: work.lost for node, work in works.items() if work.lost})
        sent = [message for message in messages if not works[_receiver(message)].lost]
        with self._asked(sent, meanwhile) as coming:
            mean, figures = self.strategy.aggregate_train(
                number, watch.over(replies.good(coming, sent))
            )
        model = records.unpack_arrays(mean) if mean is not None else start
        sent_down = records.size(arrays) * len(sent)
        state = self.knobs.state
        if state.bn == "recalibrate" and replies.accounts and not state.fixed_in(number):
            model = self._recalibrated(number, model, replies)
            sent_down += records.size(arrays) * len(replies.accounts)
        line = {
            "round": number,
            "train_loss": records.finite(figures["loss"]) if figures is not None else None,
            "asked": len(messages),
            **replies.summary(),
            **present,
            "train_seconds": time.perf_counter() - begun,
            "simulated_seconds": fleet.round_seconds(self.knobs, works.values()),
            "bytes_down": sent_down,
        }
        for node, reason in replies.silent.items():
            self.federation.lose(node, reason)
        return Played(model, line, replies.accounts, watch)

    def finish(self, played: Played) -> dict:
        """Evaluate a round and make it permanent; returns its line."""
        line = {"round": played.line["round"], **self._evaluate(played.model), **played.line}
        line["seconds"] = line["train_seconds"] + line["eval_seconds"]
        states, number = self._states(), line["round"]
        self.written |= dict.fromkeys(states, number)
        checkpoint = Checkpoint(number, played.model, clients=dict(self.written))
        numbered = [{**account, "round": number} for account in played.accounts]
        self.journal.commit(line, numbered, checkpoint, states, played.watch.lines())
        return line

    @contextmanager
    def _asked(
        self, sent: Sequence[Message], meanwhile: Callable[[], None]
    ) -> Iterator[Iterable[Message]]:
        """Ask clients, and let somebody use the time until they reply."""
        if not (sent and isinstance(self.grid, WorksAhead)):
            meanwhile()
            yield self._answers(sent) if sent else ()
            return
        with self.grid.at_work(sent) as coming:
            meanwhile()
            yield coming

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
        like = records.pack_arrays({name: model[name] for name in statistics(module)})
        config = ConfigRecord({records.ROUND: number})
        content = RecordDict({records.ARRAYS: records.pack_arrays(model), records.CONFIG: config})
        asked = [self.federation.nodes[account["partition"]] for account in replies.accounts]
        questions = [Message(content, node, records.RECALIBRATE) for node in asked]
        measured, pooled = self._replies(like, trained=False), Mean(moments(module))
        for reply in measured.good(self._answers(questions), questions):
            arrays = records.unpack_arrays(records.network_in(reply.content))
            pooled.add(arrays, float(measured.accounts[-1]["held"]))
        replies.bytes_up += measured.bytes_up
        replies.silent |= measured.silent
        replies.refused += [
            {**refusal, "reason": f"statistics: {refusal['reason']}"}
            for refusal in measured.refused
        ]
        return {**model, **(pooled.result() if pooled.total else {})}

    def _work(self, partition: int, number: int) -> fleet.Work:
        """Return what the fleet's schedule says of a client."""
        images = self.federation.members[partition].images
        return fleet.work(self.knobs, partition, number, max(images, 1))

    def _evaluate(self, model: Mapping[str, np.ndarray]) -> dict:
        """Return the figures of a network on the server's images, and the seconds it took."""
        start = time.perf_counter()
        self.network.load(model)
        loss, accuracy = self._score(self.dataset.test)
        kept = self._score(self.validation)[1]
        return {
            "test_loss": records.finite(loss),
            "test_accuracy": accuracy,
            "validation_accuracy": kept,
            "eval_seconds": time.perf_counter() - start,
        }

    def _score(self, split: Split) -> tuple[float | None, float | None]:
        """Return the mean loss in nats and the accuracy on a split; None without examples."""
        if not len(split):
            return None, None
        loss, correct = loop.evaluate(self.network, self.dataset, split)
        return loss, correct / len(split)

    def _states(self) -> dict[int, tuple[Mapping[str, np.ndarray], str]]:
        """Return what the clients of this round want to remember, ready to be written."""
        if not isinstance(self.grid, KeepsClientStates):
            return {}
        return {
            p: client_state.pack_state(state) for p, state in self.grid.changed_states().items()
        }


def _receiver(message: Message) -> int:
    return message.metadata.dst_node_id
