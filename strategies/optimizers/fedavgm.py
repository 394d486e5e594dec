"""FedAvgM (arXiv 1909.06335): FedAvg with momentum on the server."""

from strategies.strategy import Gathered, Strategy, Vector, positive, share


class FedAvgM(Strategy):
    """The server's SGD with momentum: ``Δ = x - Σ p_i y_i``, ``v <- βv + Δ``, ``x <- x - ηv``.

    Here p_i is a client's share of the examples. With β = 0 and η = 1 it is FedAvg, bit for bit.

    Args:
        eta: η, above 0.
        beta: β, from 0 to below 1.
    """

    def __init__(self, eta: float = 1.0, beta: float = 0.9) -> None:
        self.eta, self.beta = positive(eta=eta), share(beta=beta)

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters, and remember v."""
        delta = gathered.start - gathered.mean
        before = self.beta * gathered.state.get("velocity", 0.0)
        gathered.state["velocity"] = before + delta
        # x - η(βv + Δ), written from the mean, which is left as it is where nothing else is added.
        return gathered.mean + (1 - self.eta) * delta - self.eta * before
