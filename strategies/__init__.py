"""How models become one: one file a strategy, with both its halves.

The server half says how replies become one network; the client half says how a client's gradient
is corrected. A new strategy is a file here, a subclass of `Strategy`, and a row in `STRATEGIES`;
those in `strategies/rules` are Flower's. This file loads none of them: the knobs need their names
only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.serverapp import strategy as flower

    from strategies.strategy import Strategy

STRATEGIES: dict[str, str] = {
    "fedavg": "strategies.fedavg:FedAvg",
    "fedprox": "strategies.fedprox:FedProx",
    "fednova": "strategies.fednova:FedNova",
    "fedavgm": "strategies.optimizers.fedavgm:FedAvgM",
    "fedadagrad": "strategies.optimizers.adaptive:FedAdagrad",
    "fedadam": "strategies.optimizers.adaptive:FedAdam",
    "fedyogi": "strategies.optimizers.adaptive:FedYogi",
    "fedexp": "strategies.optimizers.fedexp:FedExP",
    "scaffold": "strategies.corrections.scaffold:Scaffold",
    "feddyn": "strategies.corrections.feddyn:FedDyn",
    "fedmedian": "strategies.rules.coordinates:FedMedian",
    "fedtrimmedavg": "strategies.rules.coordinates:FedTrimmedAvg",
    "krum": "strategies.rules.krum:Krum",
    "multikrum": "strategies.rules.krum:MultiKrum",
    "bulyan": "strategies.rules.krum:Bulyan",
    "qfedavg": "strategies.rules.qfedavg:QFedAvg",
}
"""Every strategy by the name that the knob `strategy.kind` takes, and where its class is. The
parameters of its constructor are its options, as `strategy.options.eta`."""


def find(kind: str) -> type[Strategy] | type[flower.Strategy]:
    """Return the class of one of `STRATEGIES`: a `Strategy`, or of Flower's."""
    place, _, name = STRATEGIES[kind].partition(":")
    return getattr(import_module(place), name)
