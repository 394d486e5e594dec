"""Feature skew: clients share one mix of classes, and inputs get noisier from client to client."""

import math

import numpy as np
from jaxtyping import Float64


def noise_levels(clients: int, sigma: float) -> Float64[np.ndarray, " clients"]:
    """Give the standard deviation of the noise on each client's inputs.

    Party P_i of P_1 to P_N gets Gaussian noise of mean 0 and *variance* ``sigma * i / N``, so
    that client number j, counted from 0, has ``sqrt(sigma * (j + 1) / N)``. Examples are dealt
    by `iid`.

    Args:
        clients: How many clients, N, at least 1.
        sigma: The variance for the last client, at least 0, in squared units of inputs that run
            from 0 to 1, before they are standardized.

    Returns:
        Standard deviations, in units of inputs that run from 0 to 1.

    Raises:
        ValueError: If clients is below 1, or sigma negative, infinite or not a number.

    Source: Li et al., arXiv 2102.02079, "Feature Distribution Skew" (noise-based feature
    imbalance). Its code, NIID-Bench's ``experiments.py``, differs: a *standard deviation* of
    ``sigma * j / (N - 1)``. We follow the text; the units are those of the code.
    """
    if clients < 1:
        raise ValueError(f"partition.clients is {clients}: set it to 1 or more")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"partition.noise is {sigma}: set it to a finite number, 0 or more")
    return np.sqrt(sigma * np.arange(1, clients + 1) / clients)
