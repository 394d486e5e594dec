"""Split each client's examples into those to train on and those held out for scoring."""

import numpy as np
from jaxtyping import Int64


def hold_out(
    parts: list[Int64[np.ndarray, " _"]], share: float, rng: np.random.Generator
) -> tuple[list[Int64[np.ndarray, " _"]], list[Int64[np.ndarray, " _"]]]:
    """Split each client's examples at random into those to train on and those held out.

    Of n examples ``share * n`` are held out, rounded to the nearest whole number (a half up),
    but at least 1 and at most ``n - 1``; of a single example, or with share 0, none. With equal
    generators a larger share holds out what a smaller one does, and more.

    Args:
        parts: One index array a client; left as they are.
        share: Which share to hold out, from 0 to below 1.
        rng: Where the held-out examples are drawn from.

    Returns:
        What each client trains on, in its order in ``parts``, and what each holds out.

    Raises:
        ValueError: If share is negative, 1 or more, or not a number.

    Source: derived.
    """
    if not 0 <= share < 1:
        raise ValueError(f"partition.held-out is {share}: set it to 0 or more and below 1")
    train, held = [], []
    for part in parts:
        n = len(part)
        count = min(max(int(share * n + 0.5), 1), n - 1) if share and n else 0
        places = rng.permutation(n)[:count]
        train.append(np.delete(part, places))
        held.append(part[places])
    return train, held
