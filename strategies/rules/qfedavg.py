"""q-FedAvg (arXiv 1905.10497): clients with a larger loss count for more."""

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from strategies.strategy import Clients


class QFedAvg(flower.QFedAvg):
    """``x <- x - Σ F_k^q Δ_k / Σ h_k`` with ``Δ_k = (x - y_k)/η`` and F_k a client's loss.

    Here ``h_k = q F_k^(q-1) ‖Δ_k‖² + F_k^q/η``, and η is the learning rate of the round, so that
    with q = 0 it is the mean in which all clients count the same. The paper's F_k is the loss of
    the round's first network; ours is the mean loss in training, each batch's before its step. It
    may not be below 0.

    Args:
        q: from 0 up.

    Raises:
        ValueError: q is below 0.
    """

    def __init__(self, q: float = 0.1) -> None:
        if q < 0:
            raise ValueError(f"q={q:g} should be 0 or more")
        super().__init__(client_learning_rate=1.0, q=q, train_loss_key="loss")
        self.rate: Callable[[int], float] = float

    def meet(self, clients: Clients) -> None:
        """Take note of the learning rates."""
        self.rate = clients.rate

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as Flower's, and keep the learning rate of the round."""
        self.client_learning_rate = self.rate(server_round)
        return super().configure_train(server_round, arrays, config, grid)
