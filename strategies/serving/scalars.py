"""What the mean of positive scalars is taken of: their logarithms, themselves, or softplus⁻¹.

A network stores a positive scalar a as l = log a. For a form φ the server's value is the
quasi-arithmetic mean ``φ⁻¹(Σ n_k φ(a_k) / Σ n_k)``: the geometric mean for the logarithm, the
arithmetic one for a itself, and between the two for softplus⁻¹. Derived (ours): no source says
which.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_Map = Callable[[np.ndarray], np.ndarray]
_LARGEST = 700.0
"""The largest |l| for which exp(l) and exp(-l) are numbers in float64; beyond, l counts as this."""


class Form(NamedTuple):
    """What a mean is taken of, in float64."""

    of_log: _Map
    """l = log a -> φ(a)."""
    to_log: _Map
    """φ(a) -> l."""


def _exp(log: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(log.astype(np.float64), -_LARGEST, _LARGEST))


def _inverse_softplus(log: np.ndarray) -> np.ndarray:
    """Return u with softplus(u) = log(1 + exp u) = a: ``u = a + log(1 - exp(-a))``."""
    a = _exp(log)
    return a + np.log(-np.expm1(-a))


FORMS = {
    "raw": Form(_exp, np.log),
    "softplus": Form(_inverse_softplus, lambda u: np.log(np.logaddexp(0, u))),
}
"""The forms by name; of logarithms the mean is taken as they are."""
