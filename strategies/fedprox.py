"""FedProx (arXiv 1812.06127): FedAvg whose clients are pulled towards the global network."""

from functools import lru_cache

from strategies.strategy import Correction, Strategy, Vectors, Weights

MU = "proximal-mu"
"""The key with which Flower's own FedProx sends μ in a request."""


class FedProx(Strategy):
    """FedAvg with the proximal term (μ/2)·‖w - w_global‖² in each client's loss.

    Its gradient is exactly μ(w - w_global): the squared norm, over all parameters and no buffers.
    With μ = 0 it is FedAvg, bit for bit.

    Args:
        mu: μ, the weight of the proximal term.
    """

    def __init__(self, mu: float = 0.0) -> None:
        self.mu = mu

    def correct(
        self, gradient: Weights, weights: Weights, start: Weights, vectors: Vectors
    ) -> None:
        """Add the gradient of the proximal term."""
        gradient.add_(weights - start, alpha=self.mu)

    def correction(self) -> Correction | None:
        """Return `correct`; None with μ = 0."""
        return self.correct if self.mu else None


@lru_cache(maxsize=8)  # clients with one μ share one correction, and so their lanes
def proximal(mu: float) -> Correction:
    """Return the client half of FedProx."""
    return FedProx(mu).correct
