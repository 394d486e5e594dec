"""The client: takes the global network, trains it on its own images, and sends it back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fl import evaluation, flat, memory, signals, training, wire
from fl.config import Experiment
from fl.data import Batch, Dataset, Share, Split, batches, load, share
from fl.fleet import work
from fl.nn import fixed_statistics, seed_noise, settled, statistics
from fl.seeds import Step, stream, torch_stream
from strategies.proximal import proximal

app = ClientApp()

_ERROR = 1000  # ours; Flower's own codes are small


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a request for one round of local training."""
    return fit([message], [context])[0]


@app.query("who_are_you")
def who_are_you(message: Message, context: Context) -> Message:
    """Say which share of the data this node holds, and which code it runs."""
    partition = int(context.node_config["partition-id"])
    return Message(wire.identity_reply(partition), reply_to=message)


@app.query("recalibrate")
def recalibrate(message: Message, context: Context) -> Message:
    """Answer a request for BatchNorm's statistics (`state.bn=recalibrate`)."""
    return _safely(_recalibrate, message, context)


def fit(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """Train one client per message: the one client path, whatever the runtime.

    A client that fails answers with its reason and costs nobody else anything.
    """
    pairs = zip(messages, contexts, strict=True)
    return [_safely(_fit, message, context) for message, context in pairs]


def _safely(answer: Callable, message: Message, context: Context) -> Message:
    """Answer a message, with the reason where that fails."""
    training.use_one_thread()
    try:
        return answer(message, context)
    except Exception as error:
        return Message(Error(_ERROR, f"{type(error).__name__}: {error}"), reply_to=message)


def _fit(message: Message, context: Context) -> Message:
    """Train one client."""
    knobs = settled(Experiment.from_flat(context.run_config))
    partition = int(context.node_config["partition-id"])
    dataset = load(knobs.data.name)
    mine = share(context.node_config, knobs)
    if not len(mine.train):
        raise ValueError("this client holds no images; set partition.min-size to 1 or more")
    start, number, mu = wire.read_request(message.content)
    network, unmeasured = _loaded(knobs, start, context)
    path = "client", partition, "round", number
    if unmeasured:
        evaluation.recalibrate(network, _in_large(knobs, mine, path))
    device = work(knobs, partition, number, len(mine.train))
    todo = _batches(knobs, mine, device.batch_size, device.epochs, path)
    own = dataset.train.only(mine.held_out)
    before = _correct(network, dataset, own)
    seed_noise(network.module, torch_stream(knobs.seed, *path, "noise"))
    fixed = knobs.state.fixed_in(number)
    with fixed_statistics(network.module, fixed):
        outcome = training.train(network, todo, knobs.client, proximal(mu) if mu else None)
    figures = {
        "batch_size": device.batch_size,
        "epochs": device.epochs,
        "held_out": len(own),
        "global_correct": before,
        "personal_correct": _correct(network, dataset, own),
        **asdict(outcome),
    }
    state = network.state()
    memory.remember(context.state, {name: t for name, t in state.items() if name not in start})
    shared = {name: state[name] for name in start}
    measured = None
    if wire.wants_signals(message.content):
        batch = signals.draw(knobs, mine.train, *path, noise=mine.noise)
        with fixed_statistics(network.module, fixed):
            measured = signals.measure(network, batch)
    content = wire.train_reply(shared, partition, len(mine.train), figures, measured)
    return Message(content, reply_to=message)


def _recalibrate(message: Message, context: Context) -> Message:
    """Measure BatchNorm's statistics of the global network on a client's own training images."""
    knobs = settled(Experiment.from_flat(context.run_config))
    partition = int(context.node_config["partition-id"])
    start, number, _ = wire.read_request(message.content)
    network, _ = _loaded(knobs, start, context)
    mine = share(context.node_config, knobs)
    path = "client", partition, "round", number
    evaluation.recalibrate(network, _in_large(knobs, mine, path))
    state = network.state()
    measured = {name: state[name] for name in statistics(network.module)}
    return Message(wire.train_reply(measured, partition, len(mine.train), {}), reply_to=message)


def _batches(
    knobs: Experiment, mine: Share, size: int, epochs: int, path: Sequence[Step]
) -> Iterator[Batch]:
    """Return batches of a client's training images, as the stream at a path has them."""
    rng, augment = stream(knobs.seed, *path), knobs.data.augment
    dataset = load(knobs.data.name)
    return batches(dataset, mine.train, size, epochs, rng, augment=augment, noise=mine.noise)


def _in_large(knobs: Experiment, mine: Share, path: Sequence[Step]) -> Iterator[Batch]:
    """Return a client's training images once, as it trains on them, in batches of up to 250."""
    return _batches(knobs, mine, 250, 1, (*path, "statistics"))


def _loaded(
    knobs: Experiment, shared: Mapping[str, Tensor], context: Context
) -> tuple[flat.FlatNetwork, bool]:
    """Return the network as a client has it, and whether it has no statistics of its own yet.

    That is what the server sent and, with `state.bn=local`, the statistics that never leave here.
    """
    network, untrained = _network(knobs)
    if knobs.state.bn != "local":
        network.load(shared)
        return network, False
    initial = {name: untrained[name] for name in statistics(network.module)}
    own = memory.remembered(context.state)
    network.load({**initial, **own, **shared})
    return network, own.keys() != initial.keys()


def _correct(network: flat.FlatNetwork, dataset: Dataset, own: Split) -> int:
    """Return how many of a client's held-out images a network gets right."""
    return evaluation.evaluate(network, dataset, own)[1] if len(own) else 0


@lru_cache(maxsize=2)
def _network(knobs: Experiment) -> tuple[flat.FlatNetwork, dict[str, Tensor]]:
    """Return this process's one network of an experiment, and its state before any training.

    Every request overwrites all of it.
    """
    network = flat.network(knobs, torch_stream(knobs.seed, "init"))
    return network, network.state()
