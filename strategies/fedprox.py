"""FedProx (arXiv 1812.06127): FedAvg whose clients are pulled towards the global network."""

from collections.abc import Callable, Iterable
from functools import lru_cache

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from jaxtyping import Float
from torch import Tensor

from strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """FedAvg that sends μ along; with μ = 0 it is FedAvg, bit for bit.

    Args:
        mu: weight of the proximal term (μ/2)·‖w - w_global‖².
        mu_key: μ's name in the request.
        **average: as FedAvg.
    """

    def __init__(self, mu: float, mu_key: str, **average: object) -> None:
        super().__init__(**average)  # pyrefly: ignore
        self.mu, self.mu_key = mu, mu_key

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as FedAvg does, with μ in the request."""
        config[self.mu_key] = self.mu
        return super().configure_train(server_round, arrays, config, grid)


Weights = Float[Tensor, "*lanes weights"]


@lru_cache(maxsize=8)  # clients with one μ have one correction, and lanes in common
def proximal(mu: float) -> Callable[[Weights, Weights, Weights], None]:
    """Return a correction that adds the gradient of (μ/2)·‖w - w_global‖² to a client's gradient.

    That gradient is exactly μ(w - w_global): the squared norm, over all parameters and no buffers.
    """

    def correct(gradient: Weights, weights: Weights, start: Weights) -> None:
        gradient.add_(weights - start, alpha=mu)

    return correct
