"""What the server measures on the way: signals in networks, and how clients diverge."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields

from flwr.app import ConfigRecord, Message

from fl.config import Experiment
from fl.data import load
from fl.messages import records
from fl.nn import BatchNorm, fixed_in, fixed_statistics, moments, probes
from fl.nn import scalars as scalar_names
from fl.server.contents import COMMON, OWN
from fl.server.watching.divergence import Divergence, gaps
from fl.tasks import objective
from fl.training.parameters import FlatNetwork
from fl.training.signals import draw, layers, measure, training_places
from strategies.arrays import Arrays

_FIGURES = [field.name for field in fields(probes.Layer)][2:]  # behind name and kind


class SignalMonitor:
    """Measures the rounds of a run for the server.

    All networks are measured in one common batch of `training_places`, drawn by the stream (seed,
    "signals"): the same in every round, for the networks that clients send and for what the server
    makes of them. Where something that training uses stays with clients, the server has no client's
    whole network, and measures its own alone.

    Args:
        knobs: which rounds are measured.
        network: the server's.
        kept: names of the tensors that stay with clients, besides BatchNorm's statistics.
    """

    def __init__(self, knobs: Experiment, network: FlatNetwork, kept: Collection[str]) -> None:
        self.knobs, self.network = knobs, network
        parameters = [name for name, _ in network.module.named_parameters()]
        self.parameters = [name for name in parameters if name not in kept]
        self.scalars = [x for x in sorted(scalar_names(network.module)) if x not in kept]
        self.moments = {v: m for v, m in moments(network.module).items() if v not in kept}
        self.whole = not kept and not (
            knobs.state.keeps_statistics and _uses_statistics(knobs, network)
        )
        """Whether clients send all that training uses."""
        self.objective = objective(knobs)
        self.batch = draw(knobs, load(knobs), training_places(knobs))
        self.layers = [(x.name, x.kind) for x in layers(network, self.batch, self.objective)]

    def round(self, number: int, start: Arrays) -> "RoundSignals | None":
        """Return what measures a round; None where it is not to be measured.

        Args:
            number: of the round; 0 has no clients.
            start: the network that its clients start from, with what stays with them.
        """
        due = self.knobs.signals.due(number, self.knobs.rounds)
        return RoundSignals(self, number, start) if due else None


class RoundSignals:
    """The signals of one round."""

    def __init__(self, monitor: SignalMonitor, number: int, start: Arrays) -> None:
        self.monitor, self.number = monitor, number
        self._divergence = Divergence(start, monitor.parameters, monitor.scalars)
        self._clients: list[_Client] = []

    @property
    def layers(self) -> int:
        """Of how many layers every reply should bring signals."""
        return len(self.monitor.layers)

    @property
    def config(self) -> ConfigRecord:
        """What requests say of it."""
        return ConfigRecord({records.MEASURE: True})

    def take(self, reply: Message) -> None:
        """Take note of a client's reply, and measure its network in the common batch."""
        network = records.unpack_arrays(records.network_in(reply.content))
        figures = records.figures(reply.content)
        common = self._measured(network) if self.monitor.whole else None
        scalars = {name: network[name].tolist() for name in self.monitor.scalars}
        pairs = self.monitor.moments.items()
        statistics = {name: network[name].copy() for pair in pairs for name in pair}
        own = records.signals(reply.content)
        self._clients.append(_Client(figures["partition"], own, common, scalars, statistics))
        self._divergence.add(network, float(figures["held"]))

    def lines(self, model: Arrays) -> Iterator[dict]:
        """Yield the round's lines, given the network that the round has left.

        The global network's is first, then its clients' in the order of their replies, each in a
        batch of its own images, with how far its running statistics are from the global ones; then
        theirs in the common batch; and last how the clients diverge.
        """
        told = self._told(None, COMMON, self._measured(model))
        module = self.monitor.network.module
        weights = _finite(probes.weights(module))
        yield {**told, "weights": weights, "scalars": probes.scalars(module)}
        for one in self._clients:
            statistics = gaps(self.monitor.moments, one.statistics, model)
            told = self._told(one.partition, OWN, one.own)
            yield {**told, "scalars": one.scalars, "statistics": statistics}
        for one in self._clients:
            if one.common is not None:
                yield self._told(one.partition, COMMON, one.common)
        if self.number:
            yield {"round": self.number, "divergence": self._divergence.summary()}

    def _measured(self, model: Arrays) -> probes.Signals:
        """Return the signals of a network in the common batch; the server's network holds it."""
        monitor = self.monitor
        monitor.network.load(model)
        fixed = fixed_in(monitor.knobs.state, self.number)
        with fixed_statistics(monitor.network.module, fixed):
            return measure(monitor.network, monitor.batch, monitor.objective)

    def _told(self, partition: object, batch: str, signals: probes.Signals) -> dict:
        """Return what all lines about a network have in common."""
        layers = [
            {"name": name, "kind": kind, **_finite(dict(zip(_FIGURES, row, strict=True)))}
            for (name, kind), row in zip(self.monitor.layers, signals.figures.tolist(), strict=True)
        ]
        about = {"round": self.number, "partition": partition, "batch": batch}
        return {**about, "images": signals.images, "layers": layers}


@dataclass(frozen=True)
class _Client:
    """What is known of a client's network in a round."""

    partition: object
    own: probes.Signals
    """In a batch of its own images, as it said."""
    common: probes.Signals | None
    """In the common batch; None where the server has not all of it."""
    scalars: dict[str, probes.Figure]
    statistics: Arrays
    """Running means and variances."""


def watch(knobs: Experiment, network: FlatNetwork, kept: Collection[str]) -> SignalMonitor | None:
    """Return what measures the rounds of a run, as `SignalMonitor`; None where nothing is to be."""
    return SignalMonitor(knobs, network, kept) if knobs.signals.every else None


def _uses_statistics(knobs: Experiment, network: FlatNetwork) -> bool:
    """Return whether a network trains by running statistics, in some round or in each."""
    norms = network.norms
    return bool(norms) and (
        knobs.state.fixed_from > 0 or any(type(x) is not BatchNorm for x in norms)
    )


def _finite(figures: Mapping[str, object]) -> dict[str, object]:
    """Return figures, however nested, with None for infinities and NaN."""
    return {
        name: _finite(value) if isinstance(value, Mapping) else records.finite(value)
        for name, value in figures.items()
    }
