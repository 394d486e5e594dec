"""The client: takes the global network, trains it on its own images, and sends it back."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fl.config import Experiment
from fl.data import Batch, Form, Share, batches, share
from fl.fleet import work
from fl.messages import client_state, node_info, records
from fl.nn import fixed_statistics, seed_noise, settled, statistics
from fl.reproducibility import determinism
from fl.reproducibility.seeds import Step, stream, torch_stream
from fl.training import loop, parameters, signals
from fl.vectorized import scheduler
from fl.vectorized.gradients import Gradients
from fl.vectorized.padding import widths
from strategies import bounds
from strategies.fedprox import proximal

app = ClientApp()

_ERROR = 1000  # ours; Flower's own codes are small
_log = logging.getLogger(__name__)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a request for one round of local training."""
    return fit([message], [context])[0]


@app.query("who_are_you")
def who_are_you(message: Message, context: Context) -> Message:
    """Say which share of the data this node holds, and which code it runs."""
    try:
        mine = share(context.node_config, Experiment.from_flat(context.run_config))
        partition = int(context.node_config["partition-id"])
        return Message(node_info.tell(partition, mine), reply_to=message)
    except Exception as error:
        return _failed(message, context, error)


@app.query("recalibrate")
def recalibrate(message: Message, context: Context) -> Message:
    """Answer a request for BatchNorm's statistics (`state.bn=recalibrate`)."""
    determinism.settle()
    try:
        return _recalibrate(message, context)
    except Exception as error:
        return _failed(message, context, error)


def fit(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """Train one client per message: the one client path, whatever the runtime.

    With `engine=cohort`, clients that train alike do so in lanes. A client that fails answers with
    its reason and costs nobody else anything.
    """
    determinism.settle()
    replies: dict[int, Message] = {}
    alike: defaultdict[tuple, dict[int, _Local]] = defaultdict(dict)
    for place, (message, context) in enumerate(zip(messages, contexts, strict=True)):
        try:
            client = _Local(message, context)
            alike[client.kind][place] = client
        except Exception as error:
            replies[place] = _failed(message, context, error)
    for clients in alike.values():
        replies |= _trained(clients)
    return [replies[place] for place in range(len(messages))]


def _failed(message: Message, context: Context, error: Exception) -> Message:
    """Answer a message with the reason why there is nothing better; a device logs it, too."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if message.metadata.message_type == records.WHO_ARE_YOU:  # else the server knows who it is
        reason = f"{records.PARTITION}={context.node_config.get(records.PARTITION)!r}: {reason}"
    if "data-path" in context.node_config:
        _log.error("no reply to %s: %s", message.metadata.message_type, reason)
    return Message(Error(_ERROR, reason), reply_to=message)


class _Local:
    """One client's round, as `fl.vectorized.scheduler.Task` wants it.

    Raises:
        ValueError: the request can't be read, or the client holds no images.
    """

    def __init__(self, message: Message, context: Context) -> None:
        self.message, self.context = message, context
        self.knobs = _knobs(json.dumps(context.run_config))
        self.partition = int(context.node_config["partition-id"])
        self.mine = share(context.node_config, self.knobs)
        if not len(self.mine.train):
            raise ValueError("this client holds no images; set partition.min-size to 1 or more")
        self.start, self.number, self.mu = records.read_request(message.content)
        self.path = "client", self.partition, "round", self.number
        self.work = work(self.knobs, self.partition, self.number, len(self.mine.train))
        self.own = self.mine.scored
        self.right_before = 0

    @property
    def kind(self) -> tuple:
        """What two clients have to have in common to train together."""
        return self.knobs, self.number, self.mu, self.work.batch_size, self.mine.dataset.form

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        return self.work.steps(len(self.mine.train))

    def begin(self, network: parameters.FlatNetwork) -> Iterator[Batch]:
        """Load the client's start into a network, and return its batches."""
        knobs = self.knobs
        untrained = _network(knobs, self.mine.dataset.form)[1]
        if _load(network, untrained, knobs, self.start, self.context):
            loop.recalibrate(network, _in_large(knobs, self.mine, self.path))
        self.right_before = self._right(network)
        if knobs.network.drops:
            seed_noise(network.module, torch_stream(knobs.seed, *self.path, "noise"))
        return _batches(knobs, self.mine, self.work.batch_size, self.work.epochs, self.path)

    def end(self, network: parameters.FlatNetwork, outcome: loop.Outcome) -> Message:
        """Remember what stays here, and reply with the rest."""
        figures = {
            "batch_size": self.work.batch_size,
            "epochs": self.work.epochs,
            "held_out": len(self.own),
            "global_correct": self.right_before,
            "personal_correct": self._right(network),
            **asdict(outcome),
        }
        measured = self._signals(network) if records.wants_signals(self.message.content) else None
        state = network.tensors()
        shared = self._clipped({name: state.pop(name) for name in self.start}, network)
        client_state.remember(self.context.state, state)
        held = len(self.mine.train)
        content = records.train_reply(shared, self.partition, held, figures, measured)
        return Message(content, reply_to=self.message)

    def fail(self, error: Exception) -> Message:
        """Reply with the reason."""
        return _failed(self.message, self.context, error)

    def _right(self, network: parameters.FlatNetwork) -> int:
        """Return how many of the client's held-out images a network gets right."""
        dataset = self.mine.dataset
        return loop.evaluate(network, dataset, self.own)[1] if len(self.own) else 0

    def _clipped(
        self, shared: Mapping[str, Tensor], network: parameters.FlatNetwork
    ) -> Mapping[str, Tensor]:
        """Return what leaves this client: no farther from the start than the server asks for."""
        norm = records.wants_clip(self.message.content)
        if norm is None:
            return shared
        after = {name: tensor.numpy() for name, tensor in shared.items()}
        near = bounds.clipped(after, self.start, norm, {part.name for part in network.segments})
        return {name: torch.from_numpy(array) for name, array in near.items()}

    def _signals(self, network: parameters.FlatNetwork) -> records.Signals:
        mine = self.mine
        batch = signals.draw(self.knobs, mine.dataset, mine.train, *self.path, noise=mine.noise)
        with fixed_statistics(network.module, self.knobs.state.fixed_in(self.number)):
            return signals.measure(network, batch)


def _trained(clients: Mapping[int, _Local]) -> dict[int, Message]:
    """Train clients of one kind, and return their replies under their places."""
    first = next(iter(clients.values()))
    knobs, network = first.knobs, _network(first.knobs, first.mine.dataset.form)[0]
    correct = proximal(first.mu) if first.mu else None
    how = scheduler.Training(knobs.client, correct, knobs.state.fixed_in(first.number))
    lanes = knobs.cohort.lanes
    if knobs.engine != "cohort" or lanes == "auto" or len(clients) == 1:
        return {place: scheduler.one_by_one(network, one, how) for place, one in clients.items()}
    how = replace(how, widths=widths(knobs, first.work.batch_size))
    places, tasks = list(clients), list(clients.values())
    name = f"{knobs.network}, {knobs.recipe}, {first.mine.dataset.form}, fixed={how.fixed}"
    gradients = _gradients(network, name, lanes, knobs.cohort.level)
    done = scheduler.together(network, tasks, how, gradients, lanes)
    return {places[place]: reply for place, reply in done}


def _recalibrate(message: Message, context: Context) -> Message:
    """Measure BatchNorm's statistics of the global network on a client's own training images."""
    knobs = _knobs(json.dumps(context.run_config))
    partition = int(context.node_config["partition-id"])
    start, number, _ = records.read_request(message.content)
    mine = share(context.node_config, knobs)
    network, untrained = _network(knobs, mine.dataset.form)
    _load(network, untrained, knobs, start, context)
    path = "client", partition, "round", number
    loop.recalibrate(network, _in_large(knobs, mine, path))
    state = network.tensors()
    measured = {name: state[name] for name in statistics(network.module)}
    return Message(records.train_reply(measured, partition, len(mine.train), {}), reply_to=message)


def _batches(
    knobs: Experiment, mine: Share, size: int, epochs: int, path: Sequence[Step]
) -> Iterator[Batch]:
    """Return batches of a client's training images, as the stream at a path has them."""
    rng, augment = stream(knobs.seed, *path), knobs.data.augment
    return batches(mine.dataset, mine.train, size, epochs, rng, augment=augment, noise=mine.noise)


def _in_large(knobs: Experiment, mine: Share, path: Sequence[Step]) -> Iterator[Batch]:
    """Return a client's training images once, as it trains on them, in batches of up to 250."""
    return _batches(knobs, mine, 250, 1, (*path, "statistics"))


def _load(
    network: parameters.FlatNetwork,
    untrained: Mapping[str, Tensor],
    knobs: Experiment,
    shared: Mapping[str, np.ndarray],
    context: Context,
) -> bool:
    """Make a network what a client has, and return whether it has no statistics of its own yet.

    That is what the server sent and, with `state.bn=local`, the statistics that never leave here.
    """
    if knobs.state.bn != "local":
        network.load(shared)
        return False
    initial = {name: untrained[name] for name in statistics(network.module)}
    own = client_state.remembered(context.state)
    network.load({**initial, **own, **shared})
    return own.keys() != initial.keys()


@lru_cache(maxsize=2)
def _knobs(run_config: str) -> Experiment:
    """Return the experiment of a run config as JSON: the same one for all clients of a round."""
    return settled(Experiment.from_flat(json.loads(run_config)))


@lru_cache(maxsize=2)
def _gradients(network: parameters.FlatNetwork, name: str, lanes: int, level: str) -> Gradients:
    """Return what differentiates lanes of a network, of which a name says all that it may bake in.

    It is made of the network as it is, so statistics that are fixed from a round on take another.
    """
    if level in ("auto", "eager"):
        return Gradients(network)
    from fl.vectorized.tracing import Traced  # loads a compiler, for which a device has no use

    return Traced(network, level in ("native", "compiled"), lanes, level == "compiled", name)


@lru_cache(maxsize=2)
def _network(knobs: Experiment, form: Form) -> tuple[parameters.FlatNetwork, dict[str, Tensor]]:
    """Return this process's one network of an experiment, and its state before any training.

    Every request overwrites all of it.
    """
    network = parameters.network(knobs, torch_stream(knobs.seed, "init"), form)
    return network, network.state()
