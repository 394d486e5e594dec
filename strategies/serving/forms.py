"""What a mean is taken of, where it is not what clients send as it is.

A network stores a positive scalar a as l = log a. For a form φ the server's value is the
quasi-arithmetic mean ``φ⁻¹(Σ n_k φ(a_k) / Σ n_k)``: the geometric mean for the logarithm, the
arithmetic one for a itself, and between the two for softplus⁻¹. Weights that a layer standardizes
in every pass can be averaged standardized. Derived (ours): no source says which.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_Map = Callable[[np.ndarray], np.ndarray]
_LARGEST = 700.0
"""The largest |l| for which exp(l) and exp(-l) are numbers in float64; beyond, l counts as this."""


class Form(NamedTuple):
    """What a mean is taken of, in float64."""

    of: _Map
    """What a client sent, such as l = log a -> φ(a)."""
    back: _Map
    """The mean of those -> what is sent to clients, such as φ(a) -> l."""


def _exp(log: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(np.clip(log.astype(np.float64), -_LARGEST, _LARGEST)))


def _inverse_softplus(log: np.ndarray) -> np.ndarray:
    """Return u with softplus(u) = log(1 + exp u) = a: ``u = a + log(1 - exp(-a))``."""
    a = _exp(log)
    return np.asarray(a + np.log(-np.expm1(-a)))


SCALARS = {
    "raw": Form(_exp, np.log),
    "softplus": Form(_inverse_softplus, lambda u: np.log(np.logaddexp(0, u))),
}
"""Forms of positive scalars by name; of logarithms the mean is taken as they are."""


def standardized(eps: float) -> Form:
    """Return the form of weights W whose layer takes off the mean of an output's N and its length.

    ``(W_i - μ_i) / √(σ²_i + eps) / √N``, with mean μ_i and biased variance σ²_i over the N weights
    that make output i: rows of mean 0 and of length 1, which is about what they begin with. Up to
    eps the layer does with them what it did with W; a row of equal weights becomes zeros. The mean
    is sent as it is: its rows are the shorter, the more clients differ.

    Shapes: W (outputs, ...), as it is returned.

    Args:
        eps: the layer's own, above 0.
    """

    def of(weights: np.ndarray) -> np.ndarray:
        rows = weights.reshape(len(weights), -1).astype(np.float64)
        rows = rows - rows.mean(1, keepdims=True)
        spread = np.sqrt(np.square(rows).mean(1, keepdims=True) + eps)
        return (rows / (spread * rows.shape[1] ** 0.5)).reshape(weights.shape)

    return Form(of, np.asarray)
