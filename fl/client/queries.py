"""What a client answers to a message that does not ask for training.

This file is not on the path of the simplest round, in which nobody is asked such a thing.
"""

from collections.abc import Callable

from flwr.app import Context, Message

from fl.client import task
from fl.messages import extras, node_info, records, run_config, scores
from fl.nn import statistics
from fl.tasks import objective
from fl.training.recalibration import recalibrate


def who_are_you(message: Message, context: Context) -> Message:
    """Say which share of the data this node holds, and which code it runs."""
    mine = task.share(context.node_config, run_config.experiment(context.run_config))
    return Message(node_info.describe(_partition(context), mine), reply_to=message)


def measure_statistics(message: Message, context: Context) -> Message:
    """Measure BatchNorm's statistics of the global network on a client's own training images."""
    knobs, request = task.knobs_of(context), records.read_request(message.content)
    partition, mine = _partition(context), task.share(context.node_config, knobs)
    network = task.network_of(knobs, mine.dataset.form)[0]
    task.load(network, mine.dataset.form, knobs, request, context)
    path = "client", partition, "round", request.round
    recalibrate(network, task.in_large(knobs, mine, path))
    state = network.tensors()
    measured = {name: state[name] for name in statistics(network.module)}
    return Message(records.train_reply(measured, partition, len(mine.train), {}), reply_to=message)


def score(message: Message, context: Context) -> Message:
    """Score the global network, with what stays here, on a client's held-out images.

    A client that has no statistics of its own yet measures them first, where they stay with it.
    """
    knobs, request = task.knobs_of(context), records.read_request(message.content)
    partition, mine = _partition(context), task.share(context.node_config, knobs)
    network, asked = task.network_of(knobs, mine.dataset.form)[0], objective(knobs)
    unmeasured = task.load(network, mine.dataset.form, knobs, request, context)
    if unmeasured and len(mine.train):
        path = "client", partition, "round", request.round
        recalibrate(network, task.in_large(knobs, mine, path))
    sums = task.score(network, mine, asked)
    value = None if sums is None else extras.pooled(asked.metrics[0], [sums])
    told = scores.Score(partition, len(mine.scored), value)
    return Message(scores.describe(told), reply_to=message)


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])  # pyrefly: ignore


QUERIES: dict[str, Callable[[Message, Context], Message]] = {
    records.WHO_ARE_YOU: who_are_you,
    records.RECALIBRATE: measure_statistics,
    records.SCORE: score,
}
"""What answers a message, by its type."""
