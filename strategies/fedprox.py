"""FedProx (arXiv 1812.06127): FedAvg whose clients are pulled towards the global network."""

from collections.abc import Iterable
from functools import lru_cache
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from strategies.fedavg import FedAvg, Sampler
from strategies.strategy import Correction, Weights

MU = "proximal-mu"
"""The key of μ in a request; Flower's own FedProx uses the same."""


class FedProx(FedAvg):
    """FedAvg that sends μ along; with μ = 0 it is FedAvg, bit for bit.

    Args:
        sampler: as `FedAvg`.
        mu: weight of the proximal term (μ/2)·‖w - w_global‖².
        **average: as `FedAvg`.
    """

    options: ClassVar[tuple[str, ...]] = ("mu",)

    def __init__(self, sampler: Sampler, *, mu: float, **average: object) -> None:
        super().__init__(sampler, **average)  # pyrefly: ignore
        self.mu = mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as FedAvg does, with μ in the request."""
        config[MU] = self.mu
        return super().configure_train(server_round, arrays, config, grid)

    @staticmethod
    def correction(config: ConfigRecord) -> Correction | None:
        """Return the pull towards the global network; None with μ = 0 or without μ."""
        mu = config.get(MU, 0.0)
        if not isinstance(mu, int | float):
            raise ValueError(f"{MU}={mu!r} in a message, expected a number")
        return proximal(float(mu)) if mu else None


@lru_cache(maxsize=8)  # clients with one μ share one correction, and so their lanes
def proximal(mu: float) -> Correction:
    """Return a correction that adds the gradient of (μ/2)·‖w - w_global‖² to a client's gradient.

    That gradient is exactly μ(w - w_global): the squared norm, over all parameters and no buffers.
    """

    def correct(gradient: Weights, weights: Weights, start: Weights) -> None:
        gradient.add_(weights - start, alpha=mu)

    return correct
