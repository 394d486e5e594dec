"""One round after another: select, train, check and aggregate, evaluate, commit."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fl import fleet
from fl.config import Experiment
from fl.data import Dataset, validation
from fl.messages import client_state, records
from fl.nn import fixed_in, moments, statistics
from fl.server.failures import nobody_trained
from fl.server.journal import BEST, ERRORS, Arrays, Checkpoint, Journal, best_of
from fl.server.nodes import Nodes, Runtime
from fl.server.replies import Replies
from fl.server.result import ending
from fl.server.watching.callback import RoundCallback
from fl.server.watching.monitor import RoundSignals, SignalMonitor
from fl.tasks import objective
from fl.training.loop import score
from fl.training.parameters import FlatNetwork
from strategies.serving.server import Mean, Server


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


@dataclass(frozen=True)
class Trained:
    """A round whose clients are done. It is neither evaluated nor permanent."""

    model: Arrays
    line: dict
    accounts: Sequence[dict] = ()
    """Of every client whose reply was used."""
    signals: RoundSignals | None = None
    states: Mapping[int, RecordDict] = field(default_factory=dict)
    """What clients remember, of those that changed it in this round."""
    strategy: Arrays = field(default_factory=dict)
    """What the strategy remembers, as it was at the end of this round."""


@dataclass(frozen=True)
class Setting:
    """What does not change in the rounds of a run."""

    knobs: Experiment
    network: FlatNetwork
    """The server's; it holds whatever was evaluated last."""
    dataset: Dataset
    strategy: Server
    about: Mapping[str, object]
    """What using the network takes, as from `fl.training.standardized.describe`."""


class Rounds:
    """Plays rounds, each from the network of the one before.

    Args:
        setting: what they have in common.
        nodes: who can be asked.
        journal: where rounds become permanent.
        runtime: what clients run on.
        tell: is called after every round, once it is permanent.
    """

    def __init__(
        self,
        setting: Setting,
        nodes: Nodes,
        journal: Journal,
        runtime: Runtime,
        tell: RoundCallback | None,
    ) -> None:
        self.setting, self.knobs, self.network = setting, setting.knobs, setting.network
        self.dataset, self.strategy = setting.dataset, setting.strategy
        self.objective = objective(self.knobs)
        self.nodes, self.journal, self.runtime, self.tell = nodes, journal, runtime, tell
        self.monitor = SignalMonitor(self.knobs, self.network) if self.knobs.signals.every else None
        self.validation = self.dataset.train.only(validation(self.knobs))
        self.lines: list[dict] = []
        self.written: dict[int, int] = {}
        """As of a `Checkpoint`."""

    def play(self, checkpoint: Checkpoint | None) -> Arrays:
        """Play the rounds that are missing, and return the network after the last."""
        if checkpoint is None:
            number, model = 0, self._begin()
        else:
            number, model = checkpoint.round, checkpoint.model
            self.written, self.lines = dict(checkpoint.clients), self.journal.rounds()
            self._keep_best(model)  # a process may have died before it did
        try:
            while number < self.knobs.rounds and not self._out_of_patience():
                number += 1
                model = self.run_round(number, model)
        finally:
            self.runtime.flush()
        return model

    def _out_of_patience(self) -> bool:
        """Return whether the run ends early, which no round that is to be evaluated yet can say."""
        if not self.knobs.run.patience:
            return False
        self.runtime.flush()
        return ending(self.lines, self.knobs) is not None

    def run_round(self, number: int, start: Arrays) -> Arrays:
        """Play one round from the network that the last one left, and return the next network."""
        begun = time.perf_counter()
        self.nodes.ready()
        # Select.
        signals = self.monitor.round(number, start) if self.monitor else None
        selected = self._select(number, start, signals)
        replies, sent = selected.replies, selected.sent
        # Train, check and aggregate: each reply as it comes, in the order of the requests.
        fold = self.strategy.fold(number, start)
        with closing(self._answers(sent)) as coming:
            for reply in replies.good(coming, sent):
                if signals:
                    signals.take(reply)
                fold.add(reply)
        mean, figures = fold.result()
        model = records.unpack_arrays(mean) if mean is not None else start
        model, measured = self._recalibrated(number, model, replies)
        self._tell_failures(number, replies)
        line = {
            "round": number,
            "train_loss": records.finite(figures["loss"]) if figures is not None else None,
            **selected.summary(),
            "train_seconds": time.perf_counter() - begun,
            "simulated_seconds": fleet.round_seconds(self.knobs, selected.works),
            "bytes_down": selected.bytes_down + records.size(replies.like) * measured,
        }
        for node, reason in replies.silent.items():
            self.nodes.mark_unavailable(node, reason)
        # Evaluate and commit: at once, or while clients are at the next round.
        states = self.runtime.changed_states()
        remembered = self.strategy.state()
        trained = Trained(model, line, replies.accounts, signals, states, remembered)
        self.runtime.when_busy(partial(self._finish, trained))
        return model

    def _select(self, number: int, start: Arrays, signals: RoundSignals | None) -> Selected:
        """Let the strategy ask clients, and leave out whom the fleet's schedule loses."""
        arrays, present = records.pack_arrays(start), self._present()
        config = signals.config if signals else ConfigRecord()
        grid = self.nodes.grid
        messages = list(self.strategy.configure_train(number, arrays, config, grid))
        layers = signals.layers if signals else None
        replies = self._replies(arrays, layers=layers, vectors=self.strategy.expected)
        receivers = [message.metadata.dst_node_id for message in messages]
        works = [self._work(replies.partition_of[node], number) for node in receivers]
        lost = {node: work.lost for node, work in zip(receivers, works, strict=True) if work.lost}
        replies.refuse(lost)
        sent = [message for message in messages if message.metadata.dst_node_id not in lost]
        return Selected(sent, works, replies, present)

    def _begin(self) -> Arrays:
        """Make round 0 of the initial network, and return it."""
        model = records.unpack_arrays(records.pack_network(self.network.state()))
        line = {"round": 0, "train_loss": None, "asked": 0}
        line |= self._replies(records.pack_arrays(model)).summary()
        line |= self._present()
        line |= {"train_seconds": 0.0, "simulated_seconds": None, "bytes_down": 0}
        signals = self.monitor.round(0, model) if self.monitor else None
        self.runtime.when_busy(partial(self._finish, Trained(model, line, signals=signals)))
        return model

    def _finish(self, trained: Trained) -> None:
        """Evaluate a round, make it permanent, and tell of it."""
        number = trained.line["round"]
        line = {"round": number, **self._evaluate(trained.model), **trained.line}
        line["seconds"] = line["train_seconds"] + line["eval_seconds"]
        lines = list(trained.signals.lines(trained.model)) if trained.signals else []
        states = {p: client_state.pack_state(state) for p, state in trained.states.items()}
        self.written |= dict.fromkeys(states, number)
        checkpoint = Checkpoint(number, trained.model, dict(self.written), trained.strategy)
        accounts = [{**account, "round": number} for account in trained.accounts]
        self.journal.commit(line, accounts, checkpoint, states, lines)
        self.lines.append(line)
        self._keep_best(trained.model)
        if self.tell:
            self.tell(line, accounts)

    def _keep_best(self, model: Arrays) -> None:
        """Keep the network of the last line's round, if that is the best round so far."""
        if best_of(self.lines, self.objective.primary)[1].get("round") == (
            number := self.lines[-1]["round"]
        ):
            self.journal.keep_network(BEST, model, number, self.setting.about)

    def _answers(self, messages: Sequence[Message]) -> Generator[Message]:
        """Send messages, and yield replies as they come."""
        if messages:
            reply = self.knobs.devices.reply
            yield from self.nodes.grid.send_and_receive(messages, timeout=reply)

    def _replies(self, like: ArrayRecord, **expected: object) -> Replies:
        partition_of = {node: partition for partition, node in self.nodes.nodes.items()}
        bounds = {"seconds": self.knobs.devices.reply, "most": self.knobs.strategy.max_norm}
        expected["metric"] = self.objective.metrics[0]
        return Replies(like, partition_of, **bounds, **expected)  # pyrefly: ignore

    def _present(self) -> dict:
        """Return how many clients can be asked, and why the others can't."""
        return {"devices": len(self.nodes.nodes), "left_out": self.nodes.absent()}

    def _work(self, partition: int, number: int) -> fleet.Work:
        """Return what the fleet's schedule says of a client."""
        images = self.nodes.members[partition].images
        return fleet.work(self.knobs, partition, number, max(images, 1))

    def _tell_failures(self, number: int, replies: Replies) -> None:
        """Keep the tracebacks of clients; of a simulation that has a bug, end it.

        Raises:
            RunFailed: this is a simulation, no client could train, and exceptions are why.
        """
        if not self.nodes.simulated:
            return  # a device's exception costs the device; its reason is in the round's line
        useless = not replies.accounts
        for partition, failure in replies.failures.items():
            if failure.bug or useless:
                text = failure.trace or failure.reason
                self.journal.keep_error(number, f"client-{partition}", text)
        # A client that holds no images can't train, and that is no mistake.
        tried = {p: f for p, f in replies.failures.items() if self.nodes.members[p].images}
        if useless and tried:
            raise nobody_trained(number, tried, self.journal.folder / ERRORS)

    def _recalibrated(self, number: int, model: Arrays, replies: Replies) -> tuple[Arrays, int]:
        """With `state.bn=recalibrate`, let the round's clients measure BatchNorm's statistics.

        Returns the network with their statistics pooled, and how many clients were asked.
        """
        state = self.knobs.state
        if state.bn != "recalibrate" or not replies.accounts or fixed_in(state, number):
            return model, 0
        module = self.network.module
        like = records.pack_arrays({name: model[name] for name in statistics(module)})
        config = ConfigRecord({records.ROUND: number})
        arrays = records.pack_arrays(model)
        content = RecordDict({records.ARRAYS: arrays, records.CONFIG: config})
        asked = [self.nodes.nodes[account["partition"]] for account in replies.accounts]
        questions = [Message(content, node, records.RECALIBRATE) for node in asked]
        measured, pooled = self._replies(like, trained=False), Mean(moments(module))
        with closing(self._answers(questions)) as coming:
            for reply in measured.good(coming, questions):
                arrays = records.unpack_arrays(records.network_in(reply.content))
                pooled.add(arrays, float(measured.accounts[-1]["held"]))
        replies.take_over(measured, "statistics")
        return {**model, **(pooled.result() if pooled.total else {})}, len(asked)

    def _evaluate(self, model: Arrays) -> dict:
        """Return the figures of a network on the server's images, and the seconds it took."""
        start, objective = time.perf_counter(), self.objective
        self.network.load(model)
        tested = score(self.network, self.dataset, self.dataset.test, objective)
        kept = score(self.network, self.dataset, self.validation, objective)
        primary = objective.metrics[0].name
        figures = {f"test_{name}": value for name, value in tested.items()}
        figures[f"validation_{primary}"] = kept[primary]
        return {**figures, "eval_seconds": time.perf_counter() - start}
