"""FedAdagrad, FedAdam and FedYogi (arXiv 2003.00295, algorithm 2): an adaptive server.

With the mean update ``Δ = Σ p_i (y_i - x)``, p_i a client's share of the examples:
``m <- β₁m + (1 - β₁)Δ``, ``v`` as each of them says, and ``x <- x + η·m / (√v + τ)``, number by
number. Both m and v begin at 0, and there is no bias correction. (The paper has v begin at τ² or
more. Flower's FedAdam begins at 0, and multiplies η by √(1 - β₂^(t+1)) / (1 - β₁^(t+1)) in round t;
its other two do not.)
"""

import numpy as np

from strategies.strategy import Gathered, Strategy, Vector, positive, share


class _Adaptive(Strategy):
    """What the three have in common."""

    def __init__(self, eta: float, beta_1: float, tau: float) -> None:
        self.eta, self.tau = positive(eta=eta), positive(tau=tau)
        self.beta_1 = share(beta_1=beta_1)

    def second(self, before: Vector, square: Vector) -> Vector:
        """Return v from what it was and Δ²."""
        raise NotImplementedError

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters, and remember m and v."""
        state, delta = gathered.state, gathered.mean - gathered.start
        zeros = np.zeros_like(delta)
        state["m"] = self.beta_1 * state.get("m", zeros) + (1 - self.beta_1) * delta
        state["v"] = self.second(state.get("v", zeros), delta**2)
        return gathered.start + self.eta * state["m"] / (np.sqrt(state["v"]) + self.tau)


class FedAdagrad(_Adaptive):
    """An adaptive server with ``v <- v + Δ²``.

    Args:
        eta: η, above 0.
        beta_1: β₁, from 0 to below 1; the paper's experiments have 0.
        tau: τ, above 0.
    """

    def __init__(self, eta: float = 0.1, beta_1: float = 0.0, tau: float = 1e-3) -> None:
        super().__init__(eta, beta_1, tau)

    def second(self, before: Vector, square: Vector) -> Vector:
        """Return the sum of all squares."""
        return before + square


class FedAdam(_Adaptive):
    """An adaptive server with ``v <- β₂v + (1 - β₂)Δ²``.

    Args:
        eta: η, above 0.
        beta_1: β₁, from 0 to below 1.
        beta_2: β₂, from 0 to below 1.
        tau: τ, above 0.
    """

    def __init__(
        self, eta: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3
    ) -> None:
        super().__init__(eta, beta_1, tau)
        self.beta_2 = share(beta_2=beta_2)

    def second(self, before: Vector, square: Vector) -> Vector:
        """Return the moving mean of squares."""
        return self.beta_2 * before + (1 - self.beta_2) * square


class FedYogi(FedAdam):
    """An adaptive server with ``v <- v - (1 - β₂)Δ²·sign(v - Δ²)``, which falls slowly.

    Args:
        eta: η, above 0.
        beta_1: β₁, from 0 to below 1.
        beta_2: β₂, from 0 to below 1.
        tau: τ, above 0.
    """

    def second(self, before: Vector, square: Vector) -> Vector:
        """Return v moved towards the squares by a part of these."""
        return before - (1 - self.beta_2) * square * np.sign(before - square)
