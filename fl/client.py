"""The client: takes the global network, trains it on its own images, and sends it back."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fl import training, wire
from fl.config import Experiment
from fl.data import Dataset, Split, batches, load, share
from fl.fleet import work
from fl.seeds import stream, torch_stream
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


def fit(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """Train one client per message: the one client path, whatever the runtime.

    A client that fails answers with its reason and costs nobody else anything.
    """
    training.use_one_thread()
    replies = []
    for message, context in zip(messages, contexts, strict=True):
        try:
            replies.append(_fit(message, context))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            replies.append(Message(Error(_ERROR, reason), reply_to=message))
    return replies


def _fit(message: Message, context: Context) -> Message:
    """Train one client."""
    knobs = Experiment.from_flat(context.run_config)
    partition = int(context.node_config["partition-id"])
    dataset = load(knobs.data.name)
    mine = share(context.node_config, knobs)
    if not len(mine.train):
        raise ValueError("this client holds no images; set partition.min-size to 1 or more")
    start, number, mu = wire.read_request(message.content)
    network = _network(knobs)
    network.load(start)
    rng = stream(knobs.seed, "client", partition, "round", number)
    device = work(knobs, partition, number, len(mine.train))
    todo = batches(
        dataset,
        mine.train,
        device.batch_size,
        device.epochs,
        rng,
        augment=knobs.data.augment,
        noise=mine.noise,
    )
    own = dataset.train.only(mine.held_out)
    before = _correct(network, dataset, own)
    outcome = training.train(network, todo, knobs.client, proximal(mu) if mu else None)
    figures = {
        "batch_size": device.batch_size,
        "epochs": device.epochs,
        "held_out": len(own),
        "global_correct": before,
        "personal_correct": _correct(network, dataset, own),
        **asdict(outcome),
    }
    content = wire.train_reply(network.state(), partition, len(mine.train), figures)
    return Message(content, reply_to=message)


def _correct(network: training.FlatNetwork, dataset: Dataset, own: Split) -> int:
    """Return how many of a client's held-out images a network gets right."""
    return training.evaluate(network, dataset, own)[1] if len(own) else 0


@lru_cache(maxsize=2)
def _network(knobs: Experiment) -> training.FlatNetwork:
    """Return this process's one network of an experiment; every request overwrites all of it."""
    return training.network(knobs, torch_stream(knobs.seed, "init"))
