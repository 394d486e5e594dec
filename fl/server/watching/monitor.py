"""What the server measures on the way: signals in networks, and how clients diverge."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
from flwr.app import ConfigRecord, Message

from fl.config import Experiment
from fl.data import load
from fl.messages import records
from fl.nn import fixed_in, fixed_statistics, probes
from fl.nn import scalars as scalar_names
from fl.tasks import objective
from fl.training.parameters import FlatNetwork
from fl.training.signals import draw, layers, measure, training_places
from strategies.arrays import Arrays

_FIGURES = [field.name for field in fields(probes.Layer)][2:]  # behind name and kind


class SignalMonitor:
    """Measures the rounds of a run for the server.

    The global network is measured in one batch of `training_places`, drawn by the stream (seed,
    "signals"): the same in every round.

    Args:
        knobs: which rounds are measured.
        network: the server's.
    """

    def __init__(self, knobs: Experiment, network: FlatNetwork) -> None:
        self.knobs, self.network = knobs, network
        self.parameters = [name for name, _ in network.module.named_parameters()]
        self.scalars = sorted(scalar_names(network.module))
        self.objective = objective(knobs)
        self.batch = draw(knobs, load(knobs), training_places(knobs))
        self.layers = [(x.name, x.kind) for x in layers(network, self.batch, self.objective)]

    def round(self, number: int, start: Arrays) -> "RoundSignals | None":
        """Return what measures a round; None where it is not to be measured.

        Args:
            number: of the round; 0 has no clients.
            start: the network that its clients start from.
        """
        due = self.knobs.signals.due(number, self.knobs.rounds)
        return RoundSignals(self, number, start) if due else None


class RoundSignals:
    """The signals of one round."""

    def __init__(self, monitor: SignalMonitor, number: int, start: Arrays) -> None:
        self.monitor, self.number = monitor, number
        shared = [
            [name for name in names if name in start]
            for names in (monitor.parameters, monitor.scalars)
        ]
        self._divergence = Divergence(start, *shared)
        self._clients: list[tuple[object, probes.Signals, dict[str, probes.Figure]]] = []

    @property
    def layers(self) -> int:
        """Of how many layers every reply should bring signals."""
        return len(self.monitor.layers)

    @property
    def config(self) -> ConfigRecord:
        """What requests say of it."""
        return ConfigRecord({records.MEASURE: True})

    def take(self, reply: Message) -> None:
        """Take note of a client's reply."""
        network = records.unpack_arrays(records.network_in(reply.content))
        scalars = {name: network[name].tolist() for name in self._divergence.scalars}
        partition = records.figures(reply.content)["partition"]
        self._clients.append((partition, records.signals(reply.content), scalars))
        self._divergence.add(network)

    def lines(self, model: Arrays) -> Iterator[dict]:
        """Yield the round's lines, given the network that the round has left.

        The global network's is first, then its clients' in the order of their replies, and last
        how these diverge.
        """
        self.monitor.network.load(model)
        module = self.monitor.network.module
        with fixed_statistics(module, fixed_in(self.monitor.knobs.state, self.number)):
            monitor = self.monitor
            measured = measure(monitor.network, monitor.batch, monitor.objective)
            told = self._told(None, measured)
        yield {
            **told,
            "weights": _finite(probes.weights(module)),
            "scalars": probes.scalars(module),
        }
        for partition, signals, scalars in self._clients:
            yield {**self._told(partition, signals), "scalars": scalars}
        if self.number:
            yield {"round": self.number, "divergence": self._divergence.summary()}

    def _told(self, partition: object, signals: probes.Signals) -> dict:
        """Return what lines about clients and about the global network have in common."""
        layers = [
            {"name": name, "kind": kind, **_finite(dict(zip(_FIGURES, row, strict=True)))}
            for (name, kind), row in zip(self.monitor.layers, signals.figures.tolist(), strict=True)
        ]
        images = signals.images
        return {"round": self.number, "partition": partition, "images": images, "layers": layers}


class Divergence:
    """How far the clients of a round come apart, in networks added one by one.

    Of each learnable scalar its variance over the K clients, all weighing the same, divided by K.
    Of the updates u_k = w_k - w_start, over all parameters and no buffers, the mean cosine of all
    pairs. With S = Σ u_k/‖u_k‖ that is (‖S‖² - K)/(K(K - 1)), so that one vector is enough. An
    update of length 0 has no direction and is left out. All in float64.

    Args:
        start: w_start.
        parameters: the names of the parameters.
        scalars: those of the learnable scalars among them.
    """

    def __init__(self, start: Arrays, parameters: Sequence[str], scalars: Sequence[str]) -> None:
        self.start, self.parameters, self.scalars = start, parameters, scalars
        self._clients, self._moving = 0, 0
        self._directions: np.ndarray | float = 0.0
        self._mean = {name: np.zeros(start[name].shape) for name in scalars}
        self._squares = {name: np.zeros(start[name].shape) for name in scalars}

    def add(self, network: Arrays) -> None:
        """Add a client's network."""
        self._clients += 1
        for name in self.scalars:  # Welford's recurrence, which subtracts no large squares
            off = network[name] - self._mean[name]
            self._mean[name] = self._mean[name] + off / self._clients
            self._squares[name] = self._squares[name] + off * (network[name] - self._mean[name])
        update = np.concatenate(
            [
                np.subtract(network[name], self.start[name], dtype=np.float64).ravel()
                for name in self.parameters
            ]
        )
        if length := np.linalg.norm(update):
            self._directions = self._directions + update / length
            self._moving += 1

    def summary(self) -> dict:
        """Return the divergence; None for a cosine where fewer than two clients moved."""
        k, together = self._moving, np.square(self._directions).sum()
        variances = {
            name: (s / max(self._clients, 1)).tolist() for name, s in self._squares.items()
        }
        return {
            "scalar_variance": variances if self._clients else {},
            "update_cosine": float(together - k) / (k * (k - 1)) if k > 1 else None,
            "clients": self._clients,
        }


def _finite(figures: Mapping[str, object]) -> dict[str, object]:
    """Return figures, however nested, with None for infinities and NaN."""
    return {
        name: _finite(value) if isinstance(value, Mapping) else records.finite(value)
        for name, value in figures.items()
    }
