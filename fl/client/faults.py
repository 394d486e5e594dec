"""What a faulty client does: its round as `fl.client.task` has it, with one thing wrong.

`fl.fleet.fault` says who is faulty in which round. What is wrong with a reply is done to it after
training, so clients train as they otherwise would, in lanes or alone.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType

from fl.client.method import Begun
from fl.data import Batch
from fl.fleet import fault
from fl.messages import records, run_config
from fl.nn import moments
from fl.training.parameters import FlatNetwork
from fl.training.task import Outcome

_OF_THE_NETWORK = ("nan", "inf", "shape", "missing", "sign", "huge", "statistics")
"""Faults of the network that a client sends; all others are faults of what it does."""
_BLINK = 1.0
"""Seconds between two moments in which a client that hangs can be interrupted."""


class ScheduledFault(RuntimeError):
    """The exception that a faulty client raises."""


class WorkerDied(OSError):
    """A worker died, told of by a process that is no worker."""


class FaultyTask:
    """A faulty client's round, as `fl.training.task.Task`.

    Args:
        task: what an honest client would do, a `fl.client.task.Task`.
    """

    def __init__(self, task: Any) -> None:
        self.task, self.kind = task, task.work.fault

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        return self.task.steps

    def begin(self, network: FlatNetwork) -> Begun:
        """Begin, or fail in the way that the fault says.

        Raises:
            ScheduledFault: the fault is an exception.
            WorkerDied: the worker is to die, and this process is the run itself, or a device.
        """
        if self.kind == "exception":
            raise ScheduledFault("faults.kind=exception: this client is faulty by schedule")
        if self.kind == "killed":  # workers would not be here: `die_by_schedule`
            raise WorkerDied("faults.kind=killed: its worker died")
        while self.kind == "hang":
            time.sleep(_BLINK)
        begun = self.task.begin(network)
        return self._mislabelled(begun) if self.kind == "labels" else begun

    def end(self, network: FlatNetwork, begun: Begun, outcome: Outcome) -> Message:
        """Reply as an honest client, and then put one thing wrong."""
        reply = self.task.end(network, begun, outcome)
        if self.kind == "late":
            time.sleep(self.task.knobs.faults.seconds)
        if self.kind in _OF_THE_NETWORK:
            sent = records.unpack_arrays(records.network_in(reply.content))
            reply.content[records.ARRAYS] = records.pack_arrays(self._wrong(network, sent))
        return reply

    def fail(self, error: Exception) -> Message:
        """Reply with the reason."""
        return self.task.fail(error)

    def _mislabelled(self, begun: Begun) -> Begun:
        """Turn the labels that a client trains on, and what its loss knows of them."""
        mine, tell = self.task.mine, self.task.how.objective.own
        classes = len(mine.dataset.classes)
        labels = classes - 1 - mine.dataset.train.labels[mine.train]
        return replace(
            begun,
            batches=_turned(begun.batches, classes),
            own=tell(labels, classes) if tell else None,
        )

    def _wrong(self, network: FlatNetwork, sent: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what a faulty client sends in place of its network."""
        f, start = self.task.knobs.faults.strength(), self.task.request.network
        first = next(part.name for part in network.segments if part.name in sent)
        match self.kind:
            case "nan" | "inf":
                return {**sent, first: _with_first(sent[first], float(self.kind))}
            case "shape":
                return {**sent, first: sent[first][np.newaxis]}
            case "missing":
                return {name: array for name, array in sent.items() if name != first}
            case "sign" | "huge":
                f = -f if self.kind == "sign" else f
                names = [part.name for part in network.segments if part.name in sent]
                return {**sent, **{name: _moved(sent[name], start[name], f) for name in names}}
            case _:  # statistics
                return {**sent, **_shifted(sent, moments(network.module), f)}


def die_by_schedule(chunk: Sequence[tuple[Message, Context]]) -> None:
    """Kill this worker, if one of the requests that it was given is of a client that kills it."""
    if any(_kills(message, context) for message, context in chunk):
        os.kill(os.getpid(), signal.SIGKILL)


def _kills(message: Message, context: Context) -> bool:
    if message.metadata.message_type != MessageType.TRAIN:
        return False
    knobs, client = run_config.experiment(context.run_config), context.node_config["partition-id"]
    return fault(knobs, int(client), records.read_round(message.content)) == "killed"  # pyrefly: ignore


def _turned(batches: Iterator[Batch], classes: int) -> Iterator[Batch]:
    """Turn the labels y of batches to C - 1 - y, lazily."""
    for inputs, labels in batches:
        yield inputs, classes - 1 - labels


def _with_first(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


def _moved(after: np.ndarray, start: np.ndarray, f: float) -> np.ndarray:
    """Return ``start + f (after - start)``."""
    update = after.astype(np.float64) - start
    return np.asarray(start + f * update, after.dtype)


def _shifted(
    sent: Mapping[str, np.ndarray], pairs: Mapping[str, str], f: float
) -> dict[str, np.ndarray]:
    """Move each running mean by f standard deviations, and multiply each variance by f."""
    wrong: dict[str, np.ndarray] = {}
    for var, mean in pairs.items():
        wrong[mean] = np.asarray(sent[mean] + f * np.sqrt(sent[var]), sent[mean].dtype)
        wrong[var] = np.asarray(f * sent[var], sent[var].dtype)
    return wrong
