"""How far the clients of a round come apart: their updates, scalars and running statistics."""

from collections.abc import Mapping, Sequence

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
    * what averaging cancels of them, with w̄ = Σ n_k w_k / Σ n_k:
      Σ n_k‖w_k - w̄‖² / Σ n_k‖u_k‖² = 1 - ‖Σ n_k u_k‖² / (Σ n_k · Σ n_k‖u_k‖²), from 0, where all
      clients have one update, to 1, where they take back each other's.

    Both are of the whole network and of each layer. Of each learnable scalar it is the variance
    over the K clients, all weighing the same, divided by K. All in float64.

    Args:
        start: w_start.
        parameters: the names of the parameters.
        scalars: those of the learnable scalars among them.
    """

    def __init__(self, start: Arrays, parameters: Sequence[str], scalars: Sequence[str]) -> None:
        self.start, self.scalars = start, scalars
        self._layers: dict[str, list[str]] = {}
        for name in parameters:
            self._layers.setdefault(name.rpartition(".")[0], []).append(name)
        self._clients = 0
        self._mean = {name: np.zeros(start[name].shape) for name in scalars}
        self._squares = {name: np.zeros(start[name].shape) for name in scalars}
        self._whole = _Directions()
        self._of_layer = {layer: _Directions() for layer in self._layers}
        self._movement = {layer: _Movement() for layer in self._layers}

    def add(self, network: Arrays, weight: float) -> None:
        """Add a client's network, which has the weight n_k in a mean."""
        self._clients += 1
        for name in self.scalars:  # Welford's recurrence, which subtracts no large squares
            off = network[name] - self._mean[name]
            self._mean[name] = self._mean[name] + off / self._clients
            self._squares[name] = self._squares[name] + off * (network[name] - self._mean[name])
        updates = {layer: self._update(network, names) for layer, names in self._layers.items()}
        for layer, update in updates.items():
            self._of_layer[layer].add(update)
            self._movement[layer].add(update, weight)
        if updates:
            self._whole.add(np.concatenate(list(updates.values())))

    def summary(self) -> dict:
        """Return the divergence; None for what it takes more clients that moved to say.

        `layers` has `update_cosine` and `cancelled` of each module that has parameters.
        """
        variances = {
            name: (s / max(self._clients, 1)).tolist() for name, s in self._squares.items()
        }
        return {
            "scalar_variance": variances if self._clients else {},
            "update_cosine": self._whole.cosine(),
            "cancelled": _cancelled(list(self._movement.values())),
            "clients": self._clients,
            "layers": {
                layer: {
                    "update_cosine": self._of_layer[layer].cosine(),
                    "cancelled": _cancelled([self._movement[layer]]),
                }
                for layer in self._layers
            },
        }

    def _update(self, network: Arrays, names: Sequence[str]) -> np.ndarray:
        return np.concatenate(
            [
                np.subtract(network[name], self.start[name], dtype=np.float64).ravel()
                for name in names
            ]
        )


class _Directions:
    """S = Σ u_k/‖u_k‖, over the clients that moved."""

    def __init__(self) -> None:
        self._sum: np.ndarray | float = 0.0
        self._moving = 0

    def add(self, update: np.ndarray) -> None:
        if length := np.linalg.norm(update):
            self._sum = self._sum + update / length
            self._moving += 1

    def cosine(self) -> float | None:
        k = self._moving
        return float(np.square(self._sum).sum() - k) / (k * (k - 1)) if k > 1 else None


class _Movement:
    """Σ n_k, Σ n_k u_k and Σ n_k‖u_k‖²."""

    def __init__(self) -> None:
        self.weights = 0.0
        self._sum: np.ndarray | float = 0.0
        self.squares = 0.0

    def add(self, update: np.ndarray, weight: float) -> None:
        self.weights += weight
        self._sum = self._sum + weight * update
        self.squares += weight * float(update @ update)

    @property
    def kept(self) -> float:
        """‖Σ n_k u_k‖² / Σ n_k, what is left of the squares after averaging."""
        return float(np.square(self._sum).sum()) / self.weights if self.weights else 0.0


def _cancelled(parts: Sequence[_Movement]) -> float | None:
    """Return what averaging cancels of some layers' movement; None where nothing moved."""
    moved, kept = sum(part.squares for part in parts), sum(part.kept for part in parts)
    return max(0.0, 1 - kept / moved) if moved else None  # rounding may leave a little more


def gaps(moments: Mapping[str, str], own: Arrays, shared: Arrays) -> dict[str, dict]:
    """Return how far a client's running statistics are from the shared ones, by BatchNorm layer.

    With the client's m_k and v_k and the shared m and v, as means over channels: `mean` is
    (m_k - m)²/(v + e), and `variance` is ln((v_k + e)/(v + e)), with BatchNorm's e = 1e-5. None
    stands for what is not finite.

    Args:
        moments: the names of running variances -> those of their means, of `fl.nn.moments`.
        own: the client's network.
        shared: the network after averaging.
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
