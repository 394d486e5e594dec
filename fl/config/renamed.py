"""Knobs that were renamed: their old spellings are still read, and the new ones are told."""

import logging
from collections.abc import Iterator, Mapping

from fl.config.parsing import ConfigError, Value

KEYS = {"cohort.lanes": "vectorized.lanes", "cohort.level": "vectorized.level"}
"""The old key of each renamed knob, and its new one."""
VALUES: dict[tuple[str, Value], Value] = {("engine", "cohort"): "vectorized"}
"""The (key, old value) of each renamed value, and its new one."""

_told: set[str] = set()
"""The renames that this process has told already."""


def modernize(flat: Mapping[str, Value], tell: bool = True) -> dict[str, Value]:
    """Return flat keys in their new spelling; keys that were never renamed stay as they are.

    Args:
        flat: knobs by flat key, in the old or the new spelling.
        tell: whether to log one line about each rename, the first time that this process meets it.

    Raises:
        ConfigError: a knob is given in both spellings.
    """
    for old, new in KEYS.items():
        if old in flat and new in flat:
            raise ConfigError(f"{old} is now {new}, and both are given; leave {old} out")
    if tell and (news := [line for line in _renames(flat) if line not in _told]):
        _told.update(news)
        logging.getLogger("fl.config").warning("fednf: %s", ", ".join(news))
    return {KEYS.get(key, key): VALUES.get((key, value), value) for key, value in flat.items()}


def modernize_header(header: Mapping) -> dict:
    """Return what an `experiment.json` says, with its knobs and its engine in the new spelling."""
    parts = {
        key: modernize(header[key], tell=False) for key in ("knobs", "engine") if key in header
    }
    return {**header, **parts}


def first_spelling(flat: Mapping[str, Value]) -> dict[str, Value]:
    """Return flat keys as they were first spelt, so that a rename changes no hash over them."""
    keys = {new: old for old, new in KEYS.items()}
    values = {(key, new): old for (key, old), new in VALUES.items()}
    return {keys.get(key, key): values.get((key, value), value) for key, value in flat.items()}


def _renames(flat: Mapping[str, Value]) -> Iterator[str]:
    """Yield a line for each old spelling among flat keys."""
    for key, value in flat.items():
        if key in KEYS:
            yield f"{key} is now {KEYS[key]}"
        if (key, value) in VALUES:
            yield f"{key}={value} is now {key}={VALUES[key, value]}"
