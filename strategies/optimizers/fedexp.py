"""FedExP (arXiv 2301.09604): the server goes on beyond the mean where clients' updates disagree."""

import numpy as np

from strategies.strategy import Gathered, Reply, Strategy, Vector, positive


class FedExP(Strategy):
    """FedAvg with a rate of the server that each round's updates decide.

    With Δ_i = y_i - x, p_i a client's share of the examples, and Δ = Σ p_i Δ_i:
    ``η = max(1, Σ p_i ‖Δ_i‖² / (2(‖Δ‖² + ε)))`` and ``x <- x + ηΔ``. The paper has equal p_i;
    these are its authors' code's.

    Args:
        epsilon: ε, above 0; 0.001 is what the authors took for CIFAR-10.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        self.epsilon = positive(epsilon=epsilon)

    def receive(self, gathered: Gathered, reply: Reply) -> None:
        """Add a reply's squared norm to the sum, with its weight."""
        square = float(np.square(reply.weights - gathered.start).sum())
        notes, weight = gathered.notes, self.weight(reply)
        notes["squares"] = notes.get("squares", 0.0) + weight * square
        notes["weights"] = notes.get("weights", 0.0) + weight

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters."""
        delta, notes = gathered.mean - gathered.start, gathered.notes
        of_mean = float(np.square(delta).sum())
        eta = max(1.0, notes["squares"] / notes["weights"] / (2 * (of_mean + self.epsilon)))
        return gathered.mean + (eta - 1) * delta
