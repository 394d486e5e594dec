"""What trackers log of a run: figures of a round's line, and knobs."""

import hashlib
from collections.abc import Mapping, Sequence

from fl.config.parsing import Value

_GROUPS = ("train", "test", "sample", "validation", "eval", "personal")
"""What stands before the first underscore of keys that belong together."""
_LONGEST = 250
"""Characters of a knob's value; longer ones, as sources of components are, are hashed."""


def figures(line: Mapping[str, object]) -> dict[str, float]:
    """Return every number in a round's line, by a name with a group before a slash.

    So `test_accuracy` becomes `test/accuracy`, and `bytes_up` becomes `round/bytes_up`. Of a list
    of anything but numbers, as `refused` is one, the length is the figure.
    """
    found: dict[str, float] = {}
    for key, value in line.items():
        if key != "round":
            group, _, rest = key.partition("_")
            name = f"{group}/{rest}" if rest and group in _GROUPS else f"round/{key}"
            found |= _numbers(name, value)
    return found


def _numbers(name: str, value: object) -> dict[str, float]:
    """Return the numbers in a value of JSON; None, texts and truths are none."""
    if isinstance(value, bool):
        return {}
    if isinstance(value, int | float):
        return {name: float(value)}
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if not all(isinstance(entry, int | float | None) for entry in value):
            return {name: float(len(value))}
        parts = enumerate(value)
        if not value:
            return {name: 0.0} if name.startswith("round/") else {}
    else:
        return {}
    return {key: x for part, entry in parts for key, x in _numbers(f"{name}/{part}", entry).items()}


def shortened(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return knobs with a hash in the place of a value that is too long for a table."""
    return {
        key: value
        if len(str(value)) <= _LONGEST
        else f"sha256 {hashlib.sha256(str(value).encode()).hexdigest()}"
        for key, value in knobs.items()
    }
