"""What tuning found for each contender of a study, as its `winners.toml` says."""

from collections.abc import Collection
from pathlib import Path

from fl.config.parsing import ConfigError, Value, read_toml

Winner = dict[str, dict[str, Value]]
"""``contender``: the knobs that tell who it is; ``knobs``: those that won."""


def read_winners(path: Path, known: Collection[str]) -> tuple[dict[str, Winner], set[int]]:
    """Return the winners by their numbers, and the seeds that tuning used.

    Args:
        path: of the file.
        known: flat keys of knobs; others are left out.

    Raises:
        ConfigError: it is no such file.
    """
    rows, seeds = dict[str, Winner](), set[int]()
    for key, value in read_toml(path).items():
        kind, number, part, *knob = [*key.split(".", 3), "", "", ""][:4]
        if kind == "seeds":
            seeds |= {value} if isinstance(value, int) else set()
        elif kind == "winner" and part in ("contender", "knobs") and knob[0] in known:
            row = rows.setdefault(number, {"contender": {}, "knobs": {}})
            row[part][knob[0]] = value
    if not (rows and seeds):
        raise ConfigError(f"{path} holds no winners; give the winners.toml of fednf tune")
    return rows, seeds
