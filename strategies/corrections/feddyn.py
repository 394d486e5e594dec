"""FedDyn (arXiv 2111.04263): each client's loss is bent until all agree on where its minimum is."""

import numpy as np
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


class FedDyn(Strategy):
    """Dynamic regularization: client i minimizes ``F_i(w) - ⟨h_i, w⟩ + (α/2)‖w - x‖²``.

    So ``g <- g + α(w - x) - h_i``, and after training ``h_i <- h_i - α(y_i - x)``. The server has
    ``h <- h - (α/N) Σ (y_i - x)`` over the round's clients, of N in all, and takes
    ``x <- mean(y_i) - h/α``. All h begin at 0.

    Args:
        alpha: α, above 0.
    """

    kept = ("h_i",)

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = positive(alpha=alpha)

    def weight(self, reply: Reply) -> float:
        """Return 1: all clients count the same."""
        return 1.0

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters, and remember h."""
        moved = gathered.count * (gathered.mean - gathered.start) / gathered.clients
        before = gathered.state.get("h", np.zeros_like(moved))
        gathered.state["h"] = before - self.alpha * moved
        return gathered.mean - gathered.state["h"] / self.alpha

    def correct(
        self, gradient: Weights, weights: Weights, start: Weights, vectors: Vectors
    ) -> None:
        """Add α(w - x) - h_i."""
        gradient.add_(weights - start, alpha=self.alpha).sub_(vectors["h_i"])

    def finish(self, done: Done) -> dict[str, Tensor] | None:
        """Move h_i."""
        done.vectors["h_i"] = done.vectors["h_i"] - self.alpha * (done.weights - done.start)
        return None
