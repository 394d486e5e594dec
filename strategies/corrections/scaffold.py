"""SCAFFOLD (arXiv 1910.06378, option II): clients are corrected for how their gradients differ."""

from collections.abc import Mapping

from torch import Tensor

from strategies.strategy import (
    Done,
    Gathered,
    Reply,
    Strategy,
    Vector,
    Vectors,
    Weights,
    positive,
)


class Scaffold(Strategy):
    """Control variates: c_i is what client i's gradients were like, and c the mean over all N.

    On a client ``g <- g - c_i + c``, and after τ steps with rate η it has
    ``c_i⁺ = c_i - c + (x - y_i) / (τη)``. The server takes the plain mean over the round's clients,
    ``x <- x + η_g · mean(y_i - x)``, and ``c <- c + (1/N) Σ (c_i⁺ - c_i)``. Both c and c_i begin
    at 0, so the first round is FedAvg's with equal weights. It is made for plain SGD: with momentum
    or Adam, (x - y_i) / (τη) is not the mean gradient.

    Args:
        eta: η_g, above 0.
    """

    shared, kept, sent = ("c",), ("c_i",), ("change",)

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = positive(eta=eta)

    def weight(self, reply: Reply) -> float:
        """Return 1: all clients count the same."""
        return 1.0

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters, and move c."""
        gathered.state["c"] = gathered.state["c"] + gathered.sums["change"] / gathered.clients
        return gathered.mean + (self.eta - 1) * (gathered.mean - gathered.start)

    def correct(
        self, gradient: Weights, weights: Weights, start: Weights, vectors: Vectors
    ) -> None:
        """Add c - c_i."""
        gradient.add_(vectors["c"]).sub_(vectors["c_i"])

    def finish(self, done: Done) -> Mapping[str, Tensor]:
        """Return c_i⁺ - c_i, and remember c_i⁺."""
        moved = (done.start - done.weights) / (done.steps * done.rate)
        change = moved - done.vectors["c"]
        done.vectors["c_i"] = done.vectors["c_i"] + change
        return {"change": change}
