"""Krum and Multi-Krum (arXiv 1703.02757), and Bulyan, which is made of them (arXiv 1802.07927).

The score of a client is the sum of its squared distances to the n - f - 2 that are closest to it,
of n replies of which up to f are bad. Distances are taken over all parameters.
"""

from flwr.serverapp import strategy as flower

from strategies.strategy import Clients


class Krum(flower.Krum):
    """The network of the client with the lowest score.

    Args:
        num_malicious_nodes: f, from 0 up.

    Raises:
        ValueError: f is below 0.
    """

    def __init__(self, num_malicious_nodes: int = 0) -> None:
        super().__init__(num_malicious_nodes=_count(num_malicious_nodes))

    def meet(self, clients: Clients) -> None:
        """Refuse rounds with too few clients, in which bad ones may be close to all others.

        Raises:
            ValueError: n is below 2f + 3.
        """
        _enough(2 * self.num_malicious_nodes + 3, self.num_malicious_nodes, clients)


class MultiKrum(flower.MultiKrum):
    """The mean, by numbers of examples, of the m clients with the lowest scores.

    Args:
        num_malicious_nodes: f, from 0 up.
        num_nodes_to_select: m, from 1 to n - f - 2; with 1 it is Krum.

    Raises:
        ValueError: f is below 0.
    """

    def __init__(self, num_malicious_nodes: int = 0, num_nodes_to_select: int = 1) -> None:
        f = _count(num_malicious_nodes)
        super().__init__(num_malicious_nodes=f, num_nodes_to_select=num_nodes_to_select)

    def meet(self, clients: Clients) -> None:
        """Refuse rounds with too few clients, and to take in more than are sure to be good.

        Raises:
            ValueError: n is below 2f + 3, or m is not from 1 to n - f - 2.
        """
        f, m = self.num_malicious_nodes, self.num_nodes_to_select
        _enough(2 * f + 3, f, clients)
        most = clients.asked - f - 2
        if not 1 <= m <= most:
            raise ValueError(
                f"num_nodes_to_select={m} should be from 1 to {most}, which is sampling.clients="
                f"{clients.asked} - num_malicious_nodes={f} - 2"
            )


class Bulyan(flower.Bulyan):
    """Each weight is the mean of the n - 4f values that are closest to the median, of n - 2f.

    Those n - 2f are of the clients with the lowest scores, and all count the same. The paper
    chooses them one after another, each by the scores of those that are left; Flower's class
    chooses all at once. In a round with fewer than 4f + 3 replies the network stays as it is.

    Args:
        num_malicious_nodes: f, from 0 up.

    Raises:
        ValueError: f is below 0.
    """

    def __init__(self, num_malicious_nodes: int = 0) -> None:
        super().__init__(num_malicious_nodes=_count(num_malicious_nodes))

    def meet(self, clients: Clients) -> None:
        """Refuse rounds with too few clients.

        Raises:
            ValueError: n is below 4f + 3.
        """
        _enough(4 * self.num_malicious_nodes + 3, self.num_malicious_nodes, clients)


def _count(f: int) -> int:
    if f < 0:
        raise ValueError(f"num_malicious_nodes={f} should be 0 or more")
    return f


def _enough(least: int, f: int, clients: Clients) -> None:
    if clients.asked < least:
        raise ValueError(
            f"num_malicious_nodes={f} takes {least} clients a round, and sampling.clients="
            f"{clients.asked}; raise that one, or lower num_malicious_nodes"
        )
