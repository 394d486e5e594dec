"""One round after another: select, train, check and aggregate, evaluate, commit."""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from math import prod

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fl import fleet
from fl.config import Experiment
from fl.data import Dataset
from fl.messages import client_state, faults, records
from fl.messages.local import give_initial
from fl.nn import fixed_in, moments, statistics
from fl.server.failures import keep_failures, stop_at_failure, too_few
from fl.server.journal import BEST, Arrays, Checkpoint, Journal, best_of
from fl.server.nodes import Nodes, Runtime
from fl.server.replies import Replies, Selected
from fl.server.result import ending
from fl.server.watching.callback import RoundCallback
from fl.server.watching.evaluation import FULL, SAMPLE, splits
from fl.server.watching.monitor import RoundSignals, watch
from fl.tasks import objective
from fl.tasks.metrics import Part
from fl.training.loop import Evaluation
from fl.training.parameters import FlatNetwork
from strategies.serving.server import Mean, Server


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
    kept: frozenset[str] = frozenset()
    """Names of the tensors that stay with clients; the server has what they begin with."""


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
        masks = self.knobs.component("task.kind")  # a user's task may have an answer for each pixel
        self.answers = prod(self.dataset.shape[1:]) if masks else 1
        self.nodes, self.journal, self.runtime, self.tell = nodes, journal, runtime, tell
        self.monitor = watch(self.knobs, self.network, setting.kept)
        self.splits = splits(self.knobs, self.dataset)
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
        before = self.strategy.state() if self.knobs.round.min_replies else {}
        selected = self._select(number, start, signals)
        replies, sent = selected.replies, selected.sent
        # Train, check and aggregate: each reply as it comes, in the order of the requests.
        fold = self.strategy.fold(number, self._shared(start))
        with closing(self._answers(sent)) as coming:
            for reply in replies.good(coming, sent):
                if signals:
                    signals.take(reply)
                fold.add(reply)
                del reply  # else two are in memory while the next one is made
        enough = len(replies.accounts) >= self.knobs.round.min_replies
        mean, figures = fold.result() if enough else (None, None)
        model = {**start, **(records.unpack_arrays(mean) if mean is not None else {})}
        model, measured = self._recalibrated(number, model, replies) if enough else (model, 0)
        self._settle(number, replies, None if enough else before)
        line = {
            "round": number,
            "lr": fleet.rate(self.knobs, number),
            "train_loss": records.finite(figures["loss"]) if figures is not None else None,
            **selected.summary(),
            "train_seconds": time.perf_counter() - begun,
            "simulated_seconds": fleet.round_seconds(self.knobs, selected.works),
            "bytes_down": selected.bytes_down + records.size(replies.like) * measured,
        }
        for node, reason in {**replies.silent, **replies.doubted}.items():
            self.nodes.mark_unavailable(node, reason)  # until it has said who it is
        # Evaluate and commit: at once, or while clients are at the next round.
        states = self.runtime.changed_states()
        remembered = self.strategy.state()
        trained = Trained(model, line, replies.accounts, signals, states, remembered)
        self.runtime.when_busy(self._evaluation(number, model), partial(self._finish, trained))
        return model

    def _select(self, number: int, start: Arrays, signals: RoundSignals | None) -> Selected:
        """Let the strategy ask clients, and leave out whom the fleet's schedule loses."""
        arrays, present = records.pack_arrays(self._shared(start)), self._present()
        config = signals.config if signals else ConfigRecord()
        messages = list(self.strategy.configure_train(number, arrays, config, self.nodes.grid))
        if self.setting.kept and self.knobs.run.start_from:
            give_initial(messages, {name: start[name] for name in self.setting.kept})
        layers, vectors = signals.layers if signals else None, self.strategy.expected
        replies = self._replies(arrays, layers=layers, vectors=vectors)
        receivers = [message.metadata.dst_node_id for message in messages]
        asked = [replies.partition_of[node] for node in receivers]
        works = [self._work(partition, number) for partition in asked]
        replies.truths = {p: self.nodes.truth(p, partial(self._work, p, number)) for p in asked}
        lost = {node: work.lost for node, work in zip(receivers, works, strict=True) if work.lost}
        replies.refuse(lost)
        if self.knobs.faults.kind != "none":
            present |= faults.told(asked, works)
        sent = [message for message in messages if message.metadata.dst_node_id not in lost]
        return Selected(sent, works, replies, present)

    def _shared(self, model: Arrays) -> Arrays:
        """Return what travels of a network."""
        return {name: model[name] for name in model if name not in self.setting.kept}

    def _begin(self) -> Arrays:
        """Make round 0 of the initial network, and return it."""
        model = records.unpack_arrays(records.pack_network(self.network.state()))
        line = {"round": 0, "lr": None, "train_loss": None, "asked": 0}
        line |= self._replies(records.pack_arrays(model)).summary() | self._present()
        line |= {"train_seconds": 0.0, "simulated_seconds": None, "bytes_down": 0}
        signals = self.monitor.round(0, model) if self.monitor else None
        trained = Trained(model, line, signals=signals)
        self.runtime.when_busy(self._evaluation(0, model), partial(self._finish, trained))
        return model

    def _finish(self, trained: Trained, parts: Iterable[Part]) -> None:
        """Make a round, with what its network's evaluation came to, permanent, and tell of it."""
        number = trained.line["round"]
        line = {"round": number, **self._figures(trained, parts), **trained.line}
        line["seconds"] = line["train_seconds"] + line["eval_seconds"]
        lines = list(trained.signals.lines(trained.model)) if trained.signals else []
        states = {p: client_state.pack_state(state) for p, state in trained.states.items()}
        self.written |= dict.fromkeys(states, number)
        checkpoint = Checkpoint(number, trained.model, dict(self.written), trained.strategy)
        accounts = [{**account, "round": number} for account in trained.accounts]
        if self.knobs.faults.kind != "none":
            faults.mark(accounts, trained.line)
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
            coming = self.nodes.grid.send_and_receive(messages, timeout=self.knobs.devices.reply)
            if self.knobs.faults.kind == "duplicate":
                coming = faults.doubled(coming, messages, self.knobs, self.nodes.nodes)
            yield from coming

    def _replies(self, like: ArrayRecord, **expected: object) -> Replies:
        partition_of = {node: partition for partition, node in self.nodes.nodes.items()}
        bounds = {"seconds": self.knobs.devices.reply, "most": self.knobs.strategy.max_norm}
        expected |= {"metric": self.objective.metrics[0], "answers": self.answers}
        return Replies(like, partition_of, **bounds, **expected)  # pyrefly: ignore

    def _present(self) -> dict:
        """Return how many clients can be asked, and why the others can't."""
        return {"devices": len(self.nodes.nodes), "left_out": self.nodes.absent()}

    def _work(self, partition: int, number: int, images: int | None = None) -> fleet.Work:
        """Return what the fleet's schedule says of a client, with as many images as it said."""
        held = self.nodes.members[partition].images if images is None else images
        return fleet.work(self.knobs, partition, number, max(held, 1))

    def _settle(self, number: int, replies: Replies, before: Arrays | None) -> None:
        """Keep what clients failed of, and end the run if that asks for it.

        `before` is the strategy's state before a round with too few replies, which it has again.

        Raises:
            RunFailed: no client could train because of exceptions, or one failed that may not.
        """
        if replies.failures and self.nodes.simulated:  # a device's exception costs the device
            images = {partition: told.images for partition, told in self.nodes.members.items()}
            keep_failures(self.journal, number, replies.failures, not replies.accounts, images)
        if before is not None:
            self.strategy.restore(before)
            replies.refused += too_few(replies.accounts, self.knobs.round.min_replies)
            replies.accounts.clear()
            replies.scores.clear()
        if self.knobs.round.on_failure == "stop":
            stop_at_failure(number, replies.refused, replies.failures)

    def _recalibrated(self, number: int, model: Arrays, replies: Replies) -> tuple[Arrays, int]:
        """With `state.bn=recalibrate`, let the round's clients measure BatchNorm's statistics.

        Returns the network with their statistics pooled, and how many clients were asked.
        """
        state, module = self.knobs.state, self.network.module
        if state.bn != "recalibrate" or not replies.accounts or fixed_in(state, number):
            return model, 0
        like = records.pack_arrays({name: model[name] for name in statistics(module)})
        arrays = records.pack_arrays(self._shared(model))
        config = ConfigRecord({records.ROUND: number})
        content = RecordDict({records.ARRAYS: arrays, records.CONFIG: config})
        asked = [self.nodes.nodes[account["partition"]] for account in replies.accounts]
        questions = [Message(content, node, records.RECALIBRATE) for node in asked]
        measured, pooled = self._replies(like, trained=False), Mean(moments(module))
        measured.truths = replies.truths
        with closing(self._answers(questions)) as coming:
            for reply in measured.good(coming, questions):
                arrays = records.unpack_arrays(records.network_in(reply.content))
                pooled.add(arrays, float(measured.accounts[-1]["held"]))
        replies.take_over(measured, "statistics")
        return {**model, **(pooled.result() if pooled.total else {})}, len(asked)

    def _evaluation(self, number: int, model: Arrays) -> Evaluation:
        """Return what evaluates the network of a round, on the images that are due."""
        asked, last = self.knobs.evaluation, number == self.knobs.rounds
        names = FULL if last or number % asked.every == 0 else SAMPLE
        chosen = {name: self.splits[name] for name in names}
        return Evaluation(self.network, self.dataset, self.objective, chosen, model)

    def _figures(self, trained: Trained, parts: Iterable[Part]) -> dict:
        """Return a network's figures, and the seconds that they took whoever evaluated it."""
        evaluation, found = self._evaluation(trained.line["round"], trained.model), list(parts)
        told, names = evaluation.figures(found), [metric.name for metric in self.objective.metrics]
        tested = told.pop("test", dict.fromkeys(["loss", *names]))
        figures = {f"test_{name}": value for name, value in tested.items()}
        figures[f"validation_{names[0]}"] = told.pop("validation", {}).get(names[0])
        sample = told.get("sample", {}) if self.knobs.evaluation.images else {}
        figures |= {f"sample_{name}": value for name, value in sample.items()}
        images = sum(len(evaluation.splits.get(name, ())) for name in ("test", "sample"))
        seconds = sum(part.seconds for part in found)
        return {**figures, "evaluated": images, "eval_seconds": seconds}
