"""How much of a study is done: at a small scale here and now, or at the size of its source."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from fl.config import Experiment
from fl.simulation.study import Study


@dataclass(frozen=True)
class Scale:
    """How much of a study is done."""

    base: Experiment
    """What its experiments have in common."""
    seeds: tuple[int, ...]
    suffix: str = ""
    """Of a study's name, and so of its folder."""
    differences: tuple[str, ...] = ()
    """In what its conditions differ from those of a table that others published, a phrase each."""


def by_scale(
    make: Callable[[Scale], Study], small: Scale, full: Scale
) -> dict[str, Callable[[], Study]]:
    """Return how a study is made at each scale; each is made once, when it is first asked for."""
    return {"small": cache(partial(make, small)), "full": cache(partial(make, full))}
