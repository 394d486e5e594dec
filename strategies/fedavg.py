"""FedAvg (arXiv 1602.05629): the mean of the clients' networks."""

from strategies.strategy import Strategy


class FedAvg(Strategy):
    """The mean, weighted by numbers of examples n_k: ``w = Σ n_k w_k / Σ n_k``.

    Clients follow their own gradients. `strategies.serving.server.Averaging` is all that it takes.
    """
