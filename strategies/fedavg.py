"""FedAvg (arXiv 1602.05629): the mean of the clients' networks, and a server's learning rate."""

from strategies.strategy import Gathered, Strategy, Vector, positive


class FedAvg(Strategy):
    """The mean, weighted by numbers of examples n_k: ``x <- x + η·(Σ n_k y_k / Σ n_k - x)``.

    Clients follow their own gradients. With η = 1 `strategies.serving.server.Averaging` is all that
    it takes. The rate of the server is that of arXiv 2003.00295, where the optimizer is SGD.

    Args:
        eta: η, above 0.
    """

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = positive(eta=eta)

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the mean and η - 1 times the move to it, which for η = 1 is the mean itself."""
        return gathered.mean + (self.eta - 1) * (gathered.mean - gathered.start)

    @property
    def is_mean(self) -> bool:
        """Whether the rate is 1."""
        return self.eta == 1
