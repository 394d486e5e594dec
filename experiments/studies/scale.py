"""How much of a study is done: at a small scale here and now, or at the size of its source."""

from dataclasses import dataclass

from fl.config import Experiment


@dataclass(frozen=True)
class Scale:
    """How much of a study is done."""

    base: Experiment
    """What its experiments have in common."""
    seeds: tuple[int, ...]
    suffix: str = ""
    """Of a study's name, and so of its folder."""
