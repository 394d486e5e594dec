"""Which values are tried: lists and ranges of knobs, all their combinations or random draws."""

import itertools
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.statistics.halving import extended
from fl.config.parsing import ConfigError, Value, cut, parse_settings
from fl.reproducibility.seeds import stream

Knobs = dict[str, Value]
"""Flat keys and their values."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER}):(log|lin)(\d*)", re.IGNORECASE)


@dataclass(frozen=True)
class Axis:
    """A knob, and what is tried of it: values, or a range from which values are drawn."""

    key: str
    values: tuple[Value, ...]
    """Of a range that has no number of points, its two ends."""
    drawn: str = ""
    """`log` or `lin`, where values between the two ends are drawn."""

    def draw(self, number: int, whole: bool) -> Value:
        """Return the value of a random candidate: a function of the knob and its number.

        Args:
            number: of the candidate.
            whole: whether the knob takes whole numbers.
        """
        rng = stream(0, "tune", self.key, number)
        if not self.drawn:
            return self.values[int(rng.integers(len(self.values)))]
        return _between(self, float(rng.uniform()), whole)


def axis(text: str, whole: bool = False) -> Axis:
    """Read an axis as the command line has it: ``KEY=VALUES``.

    Values are separated by commas, or a list of TOML: ``client.clip=norm:1,norm:5``. A range is
    ``FROM:TO:logN``, N points with one ratio between neighbours, or ``FROM:TO:linN``, with one
    difference; they have four significant digits. Without N, values are drawn from the range.

    Args:
        text: of the axis.
        whole: whether the knob takes whole numbers.

    Raises:
        ConfigError: it is no such text.
    """
    key, equals, said = (part.strip() for part in text.partition("="))
    if not (key and equals and said):
        raise ConfigError(f"{cut(text)!r} should look like KEY=VALUE,VALUE or KEY=FROM:TO:log8")
    if not (found := _RANGE.fullmatch(said)):
        return Axis(key, tuple(dict.fromkeys(_value(key, one) for one in _listed(said))))
    ends, kind = (float(found[1]), float(found[2])), found[3].lower()
    if ends[0] >= ends[1] or (kind == "log" and ends[0] <= 0):
        above = " of numbers above 0" if kind == "log" else ""
        raise ConfigError(f"{cut(text)}: a range{above} goes from a smaller to a larger one")
    if not found[4]:
        return Axis(key, ends, kind)
    points = int(found[4])
    if not 2 <= points <= _MOST:
        raise ConfigError(f"{cut(text)}: a range has 2 to {_MOST} points")
    whole_range = Axis(key, ends, kind)
    values = [_between(whole_range, n / (points - 1), whole) for n in range(points)]
    return Axis(key, tuple(dict.fromkeys(values)))


_MOST = 1000


def _between(axis: Axis, part: float, whole: bool) -> Value:
    """Return the value at a part of the way along a range."""
    low, high = map(float, axis.values)
    if axis.drawn == "log":
        low, high = math.log(low), math.log(high)
    value = low + part * (high - low)
    value = float(f"{math.exp(value) if axis.drawn == 'log' else value:.4g}")
    return round(value) if whole else value


def _listed(said: str) -> Sequence[object]:
    if not said.startswith("["):
        return said.split(",")
    try:
        return tomllib.loads(f"values = {said}")["values"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{cut(said)} is no list of TOML: {error}") from None


def _value(key: str, one: object) -> Value:
    """Read a value as `--set` does; a number may begin with its point."""
    if not isinstance(one, str):
        return one  # pyrefly: ignore
    text = re.sub(r"^([+-]?)(?=\.\d)", r"\g<1>0", one.strip())
    if not text:
        raise ConfigError(f"{key}: a value is missing between the commas")
    return parse_settings([f"{key}={text}"])[key]


def check_not_set(axes: Sequence[Axis], knobs: Knobs) -> None:
    """Refuse a knob that is compared and set.

    Raises:
        ConfigError: there is one.
    """
    for one in axes:
        if one.key in knobs:
            raise ConfigError(f"{one.key} is compared; leave it out of --set and --config")


def combined(axes: Sequence[Axis]) -> tuple[Knobs, ...]:
    """Return all combinations of the axes' values; the last axis changes fastest.

    Raises:
        ConfigError: two axes are of one knob, or an axis is a range without a number of points.
    """
    for one in axes:
        if one.drawn:
            low, high = one.values
            raise ConfigError(
                f"{one.key}={low:g}:{high:g}:{one.drawn} has no number of points: write "
                f"{one.drawn}8, or draw candidates with --random"
            )
    keys = _keys(axes)
    products = itertools.product(*(one.values for one in axes))
    return tuple(dict(zip(keys, values, strict=True)) for values in products)


def drawn(axes: Sequence[Axis], number: int, whole: Sequence[bool]) -> tuple[Knobs, ...]:
    """Return candidates whose values are drawn, of each axis by itself.

    More candidates are the same ones and others after them.

    Args:
        axes: lists and ranges.
        number: of candidates.
        whole: which axes' knobs take whole numbers.

    Raises:
        ConfigError: two axes are of one knob.
    """
    _keys(axes)
    pairs = list(zip(axes, whole, strict=True))
    return tuple({a.key: a.draw(n, flag) for a, flag in pairs} for n in range(number))


def _keys(axes: Sequence[Axis]) -> list[str]:
    keys = [one.key for one in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"{twice[0]} is there twice; give all its values at once")
    return keys


def as_number(value: Value) -> tuple[str, float] | None:
    """Return a value as a number, and what is written before it: `norm:` of `norm:5`.

    None where it is no number.
    """
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return "", float(value)
    kind, colon, rest = value.rpartition(":")
    return (kind + colon, float(rest)) if colon and re.fullmatch(_NUMBER, rest) else None


def beyond(tried: Sequence[Knobs], winner: Knobs) -> list[Knobs]:
    """Return candidates beyond the edges of a grid on which a winner is; none inside.

    Each is the winner with one knob further out, by the grid's own ratio there; see `extended`.
    Only knobs whose values are all numbers, with the same text before them, have edges.

    Args:
        tried: all candidates of the contender.
        winner: one of them.
    """
    found = []
    for key, value in winner.items():
        numbers = [as_number(one[key]) for one in tried]
        known = [number for number in numbers if number]
        if len(known) < len(numbers) or len({kind for kind, _ in known}) > 1:
            continue
        kind, at = as_number(value)  # pyrefly: ignore
        if (further := extended([number for _, number in known], at)) is None:
            continue
        if isinstance(value, int) and not further.is_integer():
            continue
        step = f"{kind}{further:g}" if kind else type(value)(further)  # pyrefly: ignore
        found.append({**winner, key: step})
    return found
