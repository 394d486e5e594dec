"""How models become one: one file a strategy, with both its halves.

The server half says who is asked and how replies become one network; the client half says how a
client's gradient is corrected. A new strategy is a file here, and a row in `STRATEGIES`.
"""

from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx
from strategies.strategy import Strategy

STRATEGIES: dict[str, type[FedAvg]] = {"fedavg": FedAvg, "fedprox": FedProx}
"""Every strategy by the name that the knob `strategy.kind` takes."""

__all__ = ["STRATEGIES", "FedAvg", "FedProx", "Strategy"]
