"""How models become one: one file a strategy, with both its halves.

The server half says how replies become one network; the client half says how a client's gradient
is corrected. A new strategy is a file here, a subclass of `Strategy`, and a row in `STRATEGIES`.
"""

from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx
from strategies.strategy import Strategy

STRATEGIES: dict[str, type[Strategy]] = {"fedavg": FedAvg, "fedprox": FedProx}
"""Every strategy by the name that the knob `strategy.kind` takes. The parameters of its
constructor are knobs of the same name, as `strategy.mu`."""

__all__ = ["STRATEGIES", "FedAvg", "FedProx", "Strategy"]
