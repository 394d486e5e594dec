"""A strategy: how a server makes one network of many, and how a client's step is corrected for it.

One file holds both halves of a strategy. The server half is a Flower `Strategy`, so Flower's own
server can run it. The client half is a function that changes a client's gradient in plain torch.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from jaxtyping import Float
from torch import Tensor

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
ROUND, WEIGHT = "server-round", "num-examples"
"""The keys of records and of values in messages. Flower's own strategies use the same."""

Weights = Float[Tensor, "*lanes weights"]
"""All parameters of a network in one vector, or such a row for each of several clients."""
Correction = Callable[[Weights, Weights, Weights], None]
"""A strategy's client half: ``correct(gradient, weights, start)`` changes the gradient in place."""


@runtime_checkable
class Fold(Protocol):
    """The replies of one round as they become one network: one at a time, in the order given."""

    def add(self, reply: Message) -> None:
        """Take a reply that has been checked."""
        ...

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the network and the mean figures; (None, None) where no reply came."""
        ...


class Strategy(flower.Strategy):
    """A strategy whose rounds are repeatable and whose memory does not grow with their clients."""

    options: ClassVar[tuple[str, ...]] = ()
    """Its own knobs: ``strategy.NAME`` is handed to its constructor as ``NAME``."""

    @abstractmethod
    def fold(self, server_round: int) -> Fold:
        """Begin to make one network of a round's replies."""

    @staticmethod
    def correction(config: ConfigRecord) -> Correction | None:
        """Return what a request asks of a client's gradients; None: clients follow their own."""
        return None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold replies one at a time, as Flower's server asks; the caller has checked them."""
        fold = self.fold(server_round)
        for reply in replies:
            fold.add(reply)
        return fold.result()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: clients score networks when they train, and the server on its own images."""
        return ()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing, since nobody was asked."""

    def summary(self) -> None:
        """Log nothing: `experiment.json` says what is run."""
