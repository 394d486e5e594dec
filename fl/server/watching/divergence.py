"""How far the clients of a round come apart: their updates, scalars and running statistics."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fl.messages import records
from fl.nn import BatchNorm
from strategies.arrays import Arrays


class Divergence:
    """How far the clients of a round come apart, in networks added one by one.

    Of updates u_k = w_k - w_start, over all parameters and no buffers:

    * the mean cosine of all pairs of K clients. With S = Σ u_k/‖u_k‖ that is
      (‖S‖² - K)/(K(K - 1)), so that one vector is enough. An update of length 0 has no direction
      and is left out;
    * what averaging by examples cancels of them, with w̄ = Σ n_k w_k / Σ n_k:
      Σ n_k‖w_k - w̄‖² / Σ n_k‖u_k‖² = 1 - ‖Σ n_k u_k‖² / (Σ n_k · Σ n_k‖u_k‖²). It is 0 where all
      clients have one update, 1 - Σ n_k² / (Σ n_k)² where updates of one length have nothing in
      common, and 1 where they take back each other.

    Both are of the whole network and of each layer, the module that a parameter is in; one in none
    is a layer of its own. Of each learnable scalar it is the variance over the K clients, all
    weighing the same, divided by K. All in float64.

    Args:
        start: w_start.
        parameters: the names of the parameters.
        scalars: those of the learnable scalars among them.
    """

    def __init__(self, start: Arrays, parameters: Sequence[str], scalars: Sequence[str]) -> None:
        self.start, self.scalars = start, scalars
        self._clients = 0
        self._mean = {name: np.zeros(start[name].shape) for name in scalars}
        self._squares = {name: np.zeros(start[name].shape) for name in scalars}
        layers = dict[str, list[str]]()
        for name in parameters:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
        self._layers = {layer: _Layer(start, names) for layer, names in layers.items()}
        self._moving = 0

    def add(self, network: Arrays, examples: float) -> None:
        """Add a client's network, trained on n_k examples."""
        self._clients += 1
        for name in self.scalars:  # Welford's recurrence, which subtracts no large squares
            off = network[name] - self._mean[name]
            self._mean[name] = self._mean[name] + off / self._clients
            self._squares[name] = self._squares[name] + off * (network[name] - self._mean[name])
        updates = [layer.update(network) for layer in self._layers.values()]
        lengths = [float(np.linalg.norm(update)) for update in updates]
        whole = math.hypot(*lengths)
        self._moving += whole > 0
        for layer, update, length in zip(self._layers.values(), updates, lengths, strict=True):
            layer.add(update, length, whole, examples)

    def summary(self) -> dict:
        """Return the divergence; None for what it takes more clients that moved to say.

        `layers` has `update_cosine` and `cancelled` of each layer.
        """
        variances = {
            name: (s / max(self._clients, 1)).tolist() for name, s in self._squares.items()
        }
        together = sum(layer.in_whole for layer in self._layers.values())
        return {
            "scalar_variance": variances if self._clients else {},
            "update_cosine": _cosine(together, self._moving),
            "cancelled": _cancelled(self._layers.values()),
            "clients": self._clients,
            "layers": {
                name: {
                    "update_cosine": _cosine(layer.in_itself, layer.moving),
                    "cancelled": _cancelled([layer]),
                }
                for name, layer in self._layers.items()
            },
        }


class _Layer:
    """Sums over the clients' updates u_k of a layer."""

    def __init__(self, start: Arrays, names: Sequence[str]) -> None:
        self.start, self.names, self.moving = start, names, 0
        size = sum(start[name].size for name in names)
        self._own, self._whole, self._sum = (np.zeros(size) for _ in range(3))
        """Σ u_k/‖u_k‖ with the layer's length and with the network's, and Σ n_k u_k."""
        self.examples = self.squares = 0.0
        """Σ n_k and Σ n_k‖u_k‖²."""

    def update(self, network: Arrays) -> np.ndarray:
        """Return a client's u_k."""
        parts = [
            np.subtract(network[name], self.start[name], dtype=np.float64).ravel()
            for name in self.names
        ]
        return np.concatenate(parts)

    def add(self, update: np.ndarray, length: float, whole: float, examples: float) -> None:
        """Add an update, given its length and that of the whole network's."""
        if length:
            self._own += update / length
            self._whole += update / whole
            self.moving += 1
        self._sum += update * examples
        self.examples += examples
        self.squares += examples * length**2

    @property
    def in_itself(self) -> float:
        """‖Σ u_k/‖u_k‖‖²."""
        return float(self._own @ self._own)

    @property
    def in_whole(self) -> float:
        """The layer's part of that of the whole network."""
        return float(self._whole @ self._whole)

    @property
    def kept(self) -> float:
        """‖Σ n_k u_k‖² / Σ n_k, what averaging leaves of `squares`."""
        return float(self._sum @ self._sum) / self.examples if self.examples else 0.0


def _cosine(together: float, moving: int) -> float | None:
    """Return the mean cosine of pairs, given ‖S‖²."""
    return (together - moving) / (moving * (moving - 1)) if moving > 1 else None


def _cancelled(layers: Iterable[_Layer]) -> float | None:
    """Return what averaging cancels of some layers' movement; None where nothing moved."""
    known = list(layers)
    moved, kept = sum(layer.squares for layer in known), sum(layer.kept for layer in known)
    return max(0.0, 1 - kept / moved) if moved else None  # rounding may leave a little more


def gaps(moments: Mapping[str, str], own: Arrays, shared: Arrays) -> dict[str, dict]:
    """Return how far a client's running statistics are from the shared ones, by BatchNorm layer.

    With the client's m_k and v_k and the shared m and v, as means over channels: `mean` is
    (m_k - m)²/(v + e), and `variance` is ln((v_k + e)/(v + e)), with BatchNorm's e = 1e-5. None
    stands for what is not finite.

    Args:
        moments: the names of running variances -> those of their means, of `fl.nn.moments`.
        own: the client's network.
        shared: the network that the round has left.
    """
    told = {}
    for variance, mean in moments.items():
        v, v_own = (of[variance].astype(np.float64) + BatchNorm.eps for of in (shared, own))
        with np.errstate(all="ignore"):  # where a network diverges
            off = np.square(own[mean].astype(np.float64) - shared[mean]) / v
            told[variance.rpartition(".")[0]] = {
                "mean": records.finite(float(off.mean())),
                "variance": records.finite(float(np.log(v_own / v).mean())),
            }
    return told
