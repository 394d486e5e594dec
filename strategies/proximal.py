"""FedProx's client half (arXiv 1812.06127, equation 2): a pull towards the global network."""

from collections.abc import Callable
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, "*lanes weights"]


@lru_cache(maxsize=8)  # clients with one μ have one correction, and lanes in common
def proximal(mu: float) -> Callable[[Vector, Vector, Vector], None]:
    """Return a correction that adds the gradient of (μ/2)·‖w - w_global‖² to a client's gradient.

    That gradient is exactly μ(w - w_global): the squared norm, over all parameters and no buffers.
    """

    def correct(gradient: Vector, weights: Vector, start: Vector) -> None:
        gradient.add_(weights - start, alpha=mu)

    return correct
