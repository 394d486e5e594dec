"""What a client does: one round of training on its own images, from the request to the reply.

`answer` is the one client path, whatever the runtime: Flower's app calls it with one message,
simulations with many. A client that fails answers with its reason and costs nobody else anything.
"""

import json
import logging
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from flwr.app import Context, Message, MessageType
from torch import Tensor

from fl.client import local
from fl.client.faults import FaultyTask
from fl.client.method import Begun, method_of
from fl.client.spans import NotedTask, Span
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Batch, Form, Share, batches, share
from fl.fleet import in_round, work
from fl.messages import client_state, records, run_config
from fl.nn import fixed_in, fixed_statistics, resolve_auto
from fl.nn.probes import Signals
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.errors import in_words
from fl.reproducibility.seeds import Step, stream, torch_stream
from fl.tasks import Objective, objective
from fl.training import signals
from fl.training.loop import Outcome, Training, evaluate, train_task, without_exit
from fl.training.parameters import FlatNetwork, build_network, keeps
from fl.training.per_example import noise_stream
from fl.training.recalibration import recalibrate
from strategies import bounds
from strategies.strategy import Done

_FAULTS = (ConfigError, OSError, MemoryError, torch.OutOfMemoryError)
"""Exceptions that are a fault of a client's data or device. All others are bugs."""
_log = logging.getLogger(__name__)


def answer(
    messages: Sequence[Message],
    contexts: Sequence[Context],
    *,
    catch: bool = True,
    spans: list[Span] | None = None,
) -> list[Message]:
    """Answer messages, each for the client of its context, in their order.

    Requests to train are answered together: with `engine=vectorized`, clients that train alike do
    so in lanes.

    Args:
        messages: what is asked.
        contexts: whom, one for each message; what a client remembers is in its context after.
        catch: whether an exception of a client is its answer. Else it is raised as it is.
        spans: where to note from when to when each client trained; None: nowhere.
    """
    replies: dict[int, Message] = {}
    alike: defaultdict[tuple, dict[int, Task]] = defaultdict(dict)
    for place, (message, context) in enumerate(zip(messages, contexts, strict=True)):
        try:
            if message.metadata.message_type == MessageType.TRAIN:
                task = Task(message, context)
                alike[task.kind][place] = task
            else:
                from fl.client.queries import QUERIES  # which loads this file

                with without_exit():
                    replies[place] = QUERIES[message.metadata.message_type](message, context)
        except Exception as error:
            if not catch:
                raise
            replies[place] = _failed(message, context, error)
    for tasks in alike.values():
        replies |= _trained(tasks, catch, spans)
    return [replies[place] for place in range(len(messages))]


def _failed(message: Message, context: Context, error: Exception) -> Message:
    """Answer a message with the reason why there is nothing better.

    A device logs it, and tells one line. A simulated client tells its traceback, too.
    """
    reason = in_words(error)
    if message.metadata.message_type == records.WHO_ARE_YOU:  # else the server knows who it is
        reason = f"{records.PARTITION}={context.node_config.get(records.PARTITION)!r}: {reason}"
    code = records.FAULT if isinstance(error, _FAULTS) else records.BUG
    if "data-path" not in context.node_config:
        trace = "".join(traceback.format_exception(error))
        return records.failure(message, code, reason, trace)
    _log.error("no reply to %s: %s", message.metadata.message_type, reason)
    return records.failure(message, code, reason)


class Task:
    """One client's round, as `fl.training.task.Task`.

    Raises:
        ConfigError: the client holds no images.
        ValueError: the request can't be read.
    """

    def __init__(self, message: Message, context: Context) -> None:
        self.message, self.context, self.knobs = message, context, knobs_of(context)
        self.partition = int(context.node_config["partition-id"])  # pyrefly: ignore
        self.mine = share(context.node_config, self.knobs)
        if not len(self.mine.train):
            raise ConfigError("this client holds no images; set partition.min-size to 1 or more")
        self.request = records.read_request(message.content)
        self.path = "client", self.partition, "round", self.request.round
        self.work = work(self.knobs, self.partition, self.request.round, len(self.mine.train))
        self.method = method_of(self.knobs)
        correct = self.method.correct
        if self.method.asked_in_request:
            correct = self.method.asked(self.request.config)
        knobs, number = self.knobs, self.request.round
        self.owned, form = None, self.mine.dataset.form
        if keeps(knobs):
            self.owned = local.ownership(knobs, form, network_of(knobs, form)[0])
            correct = self.owned.only_shared(correct)
        client, fixed = in_round(knobs, number, self.work), fixed_in(knobs.state, number)
        self.how = Training(client, correct, fixed, objective(knobs), knobs.privacy)

    @property
    def kind(self) -> tuple:
        """What two clients have to have in common to train together."""
        return self.knobs, self.how, self.work.batch_size, self.mine.dataset.form

    @property
    def steps(self) -> int:
        """How many steps there will be."""
        return self.work.steps(len(self.mine.train))

    def begin(self, network: FlatNetwork) -> Begun:
        """Load the client's start into a network."""
        knobs = self.knobs
        if load(network, self.mine.dataset.form, knobs, self.request, self.context):
            recalibrate(network, in_large(knobs, self.mine, self.path))
        before = score(network, self.mine, self.how.objective)
        if network.drops:
            network.seed(torch_stream(knobs.seeds["order"], *self.path, "noise"))
        data, tell = self.mine.dataset, self.how.objective.own
        own = tell(data.train.labels[self.mine.train], len(data.classes)) if tell else None
        coming = _batches(knobs, self.mine, self.work.images_a_step, self.work.epochs, self.path)
        begun = Begun(self.work.cut(coming, len(self.mine.train)), before, own, owned=self.owned)
        if knobs.privacy.per_example_noise:
            begun.noise = noise_stream(knobs, self.path)
        if self.method.busy:
            self.method.begin(begun, network, self.request, self.context.state)
        return begun

    def end(self, network: FlatNetwork, begun: Begun, outcome: Outcome) -> Message:
        """Remember what stays here, and reply with the rest."""
        figures = {"batch_size": self.work.batch_size, "epochs": self.work.epochs}
        figures["held_out"] = len(self.mine.scored)
        scores = begun.before, score(network, self.mine, self.how.objective)
        if right := self.how.objective.metrics[0].counts_right:
            counts = [0 if sums is None else int(sums[0]) for sums in scores]
            figures |= {"global_correct": counts[0], "personal_correct": counts[1]}
        figures |= asdict(outcome)
        measured = self._signals(network) if self.request.measures else None
        state = network.tensors()
        shared = self._clipped({name: state.pop(name) for name in self.request.network}, network)
        held, vectors = len(self.mine.train), None
        if begun.start is not None:
            facts = self.request.round, self.how.client.lr, held, outcome.steps, outcome.loss
            done = Done(begun.start, network.weights.clone(), begun.vectors, *facts)
            vectors = self.method.end(done, self.context.state, self.owned)
        if state:
            client_state.remember(self.context.state, state)
        told = None if right else scores
        content = records.train_reply(shared, self.partition, held, figures, measured, told)
        if vectors:
            content[records.VECTORS] = records.pack_network(vectors)
        return Message(content, reply_to=self.message)

    def fail(self, error: Exception) -> Message:
        """Reply with the reason."""
        return _failed(self.message, self.context, error)

    def _clipped(self, shared: Mapping[str, Tensor], network: FlatNetwork) -> Mapping[str, Tensor]:
        """Return what leaves this client: no farther from the start than the server asks for."""
        if self.request.clip is None:
            return shared
        after = {name: tensor.numpy() for name, tensor in shared.items()}
        covered = {part.name for part in network.segments}
        near = bounds.clipped(after, self.request.network, self.request.clip, covered)
        return {name: torch.from_numpy(array) for name, array in near.items()}

    def _signals(self, network: FlatNetwork) -> Signals:
        mine = self.mine
        batch = signals.draw(self.knobs, mine.dataset, mine.train, *self.path, noise=mine.noise)
        with fixed_statistics(network.module, self.how.fixed):
            return signals.measure(network, batch, self.how.objective)


def _trained(
    tasks: Mapping[int, Task], catch: bool, spans: list[Span] | None
) -> dict[int, Message]:
    """Train clients of one kind, and return their replies under their places."""
    first = next(iter(tasks.values()))
    doing: dict[int, Any] = {
        place: FaultyTask(task) if task.work.fault else task for place, task in tasks.items()
    }
    if spans is not None:
        paths = {place: (task.request.round, task.partition) for place, task in tasks.items()}
        doing = {place: NotedTask(task, paths[place], spans) for place, task in doing.items()}
    knobs, form = first.knobs, first.mine.dataset.form
    network = network_of(knobs, form)[0]
    if knobs.engine == "vectorized" and knobs.vectorized.lanes != "auto" and len(tasks) > 1:
        from fl.vectorized.scheduler import train_together  # which a device does not have

        return train_together(network, doing, first.how, knobs, form, first.work.batch_size)
    replies: dict[int, Message] = {}
    for place, task in doing.items():
        try:
            replies[place] = train_task(network, task, first.how)
        except Exception as error:
            if not catch:
                raise
            replies[place] = task.fail(error)
    return replies


def score(network: FlatNetwork, mine: Share, objective: Objective) -> Tensor | None:
    """Return what the primary metric sums up of held-out images; None where there are none."""
    own, metric = mine.scored, objective.metrics[0]
    if not len(own):
        return None
    _, (sums,) = evaluate(network, mine.dataset, own, objective, [metric])
    return metric.shared(sums)


def _batches(
    knobs: Experiment, mine: Share, size: int, epochs: int, path: Sequence[Step]
) -> Iterator[Batch]:
    """Return batches of a client's training images, as the stream at a path has them."""
    return batches(mine, size, epochs, stream(knobs.seeds["order"], *path), knobs.data.augment)


def in_large(knobs: Experiment, mine: Share, path: Sequence[Step]) -> Iterator[Batch]:
    """Return a client's training images once, as it trains on them, in batches of up to 250."""
    return _batches(knobs, mine, 250, 1, (*path, "statistics"))


def load(
    network: FlatNetwork,
    form: Form,
    knobs: Experiment,
    request: records.Request,
    context: Context,
) -> bool:
    """Make a network what a client has, and return whether it has no statistics of its own yet."""
    if not keeps(knobs):
        network.load(request.network)
        return False
    owned, untrained = local.ownership(knobs, form, network), network_of(knobs, form)[1]
    return owned.load(network, untrained, request, context.state)


def knobs_of(context: Context) -> Experiment:
    """Return the experiment of a context: the same object for all clients of a run."""
    return _resolved(json.dumps(context.run_config))


@lru_cache(maxsize=2)
def _resolved(text: str) -> Experiment:
    return resolve_auto(run_config.experiment(json.loads(text)))


@lru_cache(maxsize=2)
def network_of(knobs: Experiment, form: Form) -> tuple[FlatNetwork, dict[str, Tensor]]:
    """Return this process's one network of an experiment, and its state before any training.

    Every request overwrites all of it.
    """
    prepare_process()
    network = build_network(knobs, torch_stream(knobs.seeds["init"], "init"), form)
    return network, network.state()
