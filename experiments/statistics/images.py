"""What test images add to the error of a comparison: other images would have had other answers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Num

from experiments.statistics.endpoints import LEVEL
from experiments.statistics.paired import t_interval
from fl.reproducibility.seeds import stream

Right = Bool[np.ndarray, "blocks images"]
"""Whether a contender's network of a block answered an image rightly."""
DRAWS = 2000


@dataclass(frozen=True)
class Apart:
    """A difference in accuracy, and how far it reaches."""

    mean: float
    blocks: tuple[float, float]
    """Where further blocks may put it: Student's interval."""
    images: tuple[float, float]
    """And further test images, too: `crossed_interval`."""


def apart(right: Right, other: Right, level: float = LEVEL) -> Apart:
    """Return by how much a contender is ahead of another, with both intervals.

    Args:
        right: of one contender, in the order of blocks and images.
        other: of the other.
        level: of the intervals.

    Raises:
        ValueError: as `crossed_interval`.
    """
    both = crossed_interval(right, other, level)
    d = right.mean(1) - other.mean(1)
    return Apart(float(d.mean()), t_interval(d, level), both)


def crossed_interval(right: Right, other: Right, level: float = LEVEL) -> tuple[float, float]:
    """Return the bootstrap interval of a difference in accuracy, drawing blocks and images.

    The t interval of `paired` is about further blocks on these test images. This one is about
    further blocks on other images of their kind: blocks and images are each drawn with
    replacement, independently, 2,000 times, and the percentiles of the mean difference are told.
    It is somewhat too wide, since the noise of a single answer counts in both draws.

    Source: Owen, The pigeonhole bootstrap, 2007, doi 10.1214/07-AOAS122.

    Args:
        right: of one contender, in the order of blocks and images.
        other: of the other.
        level: of the interval.

    Raises:
        ValueError: the two are not of the same blocks and images, or there are fewer than two
            blocks.
    """
    if right.shape != other.shape or len(right) < 2:
        raise ValueError(f"answers of shapes {right.shape} and {other.shape}: two blocks or more")
    means = _draw(right.astype(np.int8) - other.astype(np.int8))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _draw(differences: Num[np.ndarray, "blocks images"]) -> Num[np.ndarray, " draws"]:
    """Return means over blocks and images that are drawn, as they are at every call."""
    rng, (blocks, images) = stream(0, "pigeonhole"), differences.shape
    found = np.empty(DRAWS)
    for place in range(DRAWS):
        whole = rng.multinomial(blocks, np.full(blocks, 1 / blocks))
        of_block = whole @ differences
        found[place] = of_block[rng.integers(images, size=images)].sum()
    return found / (blocks * images)
