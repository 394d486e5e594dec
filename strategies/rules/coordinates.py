"""The median and the trimmed mean of each weight by itself (arXiv 1803.01498)."""

import math

from flwr.serverapp import strategy as flower

from strategies.strategy import Clients


class FedMedian(flower.FedMedian):
    """Each weight is the median of the clients', of an even number the mean of the middle two.

    All clients count the same. It bears fewer than half of them.
    """

    def __init__(self) -> None:
        super().__init__()


class FedTrimmedAvg(flower.FedTrimmedAvg):
    """Each weight is the mean of the clients' without the ⌊βn⌋ smallest and the ⌊βn⌋ largest of n.

    All clients count the same. It bears ⌊βn⌋ of them.

    Args:
        beta: β, from 0 to below a half.

    Raises:
        ValueError: β is another number.
    """

    def __init__(self, beta: float = 0.2) -> None:
        if not 0 <= beta < 0.5:
            raise ValueError(f"beta={beta:g} should be a number from 0 to below 0.5")
        super().__init__(beta=beta)

    def meet(self, clients: Clients) -> None:
        """Refuse a β that cuts off nobody.

        Raises:
            ValueError: ⌊βn⌋ is 0, and β is not.
        """
        n = clients.asked
        if self.beta and not int(self.beta * n):
            least = math.ceil(10_000 / n) / 10_000
            raise ValueError(
                f"beta={self.beta:g} cuts off none of {n} replies; set it to {least:g} or more, "
                "or raise sampling.clients"
            )
