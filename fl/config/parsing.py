"""Knobs as objects and as text: flat keys, TOML files and KEY=VALUE settings."""

import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fl.reproducibility.errors import ConfigError as ConfigError
from fl.reproducibility.errors import cut as cut

Value = bool | int | float | str
"""What Flower lets a run config hold."""


class Knobs(BaseModel):
    """Immutable settings whose names are written with hyphens outside of Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        strict=True,  # true is no number and "4" is not 4
        use_attribute_docstrings=True,  # `describe` shows them
    )


_MOST_BITS = 1024
"""Bits of a whole number; one with more is no float64 either."""
_DEEPEST = 8
"""Tables in tables; knobs have one, and options of components a second."""
_LARGEST_FILE = 16 * 2**20
"""Bytes of a TOML file of knobs, with components and all."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the nearest of the known names, or where none is near, all of them."""
    known = list(known)
    near = difflib.get_close_matches(cut(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def flatten(tables: Mapping[str, object], prefix: str = "") -> dict[str, Value]:
    """Turn nested tables into flat dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Value] = {}
    for key, value in tables.items():
        if isinstance(value, Value):
            _check_value(prefix + key, value)
            flat[prefix + key] = value
        elif isinstance(value, Mapping) and prefix.count(".") < _DEEPEST:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            kind = "a table" if isinstance(value, Mapping) else cut(value)
            raise ConfigError(
                f"{cut(prefix + key)}={kind} is neither a number, text nor true/false"
            )
    return flat


def unflatten(flat: Mapping[str, Value], known: Collection[str] = ()) -> dict[str, object]:
    """Turn flat keys of at most one dot into nested tables.

    A key stays as it is where what is in front of its dot is a knob itself, as in `seed.deal`.

    Raises:
        ConfigError: a text that no file can hold.
    """
    tables: dict[str, object] = {}
    for key, value in flat.items():
        _check_value(key, value)
        table, _, name = key.rpartition(".")
        if table and table not in known:
            tables.setdefault(table, {})[name] = value  # pyrefly: ignore
        else:
            tables[key] = value
    return tables


def _check_value(key: str, value: object) -> None:
    """Refuse text that can't be a file's name nor UTF-8, and numbers that can't be written.

    Raises:
        ConfigError: it is such a value.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise ConfigError(f"{cut(key)}={cut(repr(value))} has a NUL character; leave it out")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                shown = f"{cut(key)}={cut(repr(value))}"
                raise ConfigError(f"{shown} is no UTF-8; write it in UTF-8") from None
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ConfigError(f"{cut(key)} is {cut(value)}; no knob takes such a number")


def one_line(error: ValidationError, defaults: Mapping[str, Value]) -> str:
    """Say pydantic's first complaint: the key, the value found, what is wrong, and the default."""
    first, *others = error.errors()
    complaint = first["msg"].removeprefix("Value error, ")
    # What a knob may be besides, such as a component.
    besides = [e["msg"].removeprefix("Value error,") for e in others]
    complaint += "".join(text for text in besides if text.startswith(" or "))
    complaint = complaint[0].lower() + complaint[1:]
    names = [str(part) for part in first["loc"] if "[" not in str(part)]
    while names and ".".join(names) not in defaults:
        names.pop()
    if not names:
        return complaint
    key = ".".join(names)
    return f"{key}={cut(first['input'])}: {complaint} (the default is {defaults[key]})"


def read_toml(path: Path) -> dict[str, Value]:
    """Read a TOML file of knobs, nested or flat, into flat keys.

    Raises:
        ConfigError: the file can't be read, or isn't TOML.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(f"can't read {path}: it is no regular file, but a pipe or a device")
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in its name
        raise ConfigError(f"can't read {cut(repr(str(path)))}: {error}") from None
    if len(raw) > _LARGEST_FILE:
        raise ConfigError(f"can't read {path} as TOML: it has more than {_LARGEST_FILE:,} bytes")
    try:
        return flatten(_toml(raw.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ConfigError(f"can't read {path} as TOML: {error}; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, _Unreadable) as error:
        raise ConfigError(f"can't read {path} as TOML: {error}") from None


class _Unreadable(ValueError):
    """TOML that Python's parser gives up on."""


def _toml(text: str) -> dict[str, object]:
    """Parse TOML, with a reason in words for what its parser was not made for.

    Raises:
        TOMLDecodeError: it is no TOML.
        _Unreadable: it is nested too deeply, or has a number or a date that can't be.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _Unreadable("brackets are nested too deeply") from None
    except (ValueError, OverflowError) as error:  # 5,000 digits; a date of month 13
        why = str(error).partition("; use sys.")[0]  # which is for programmers
        raise _Unreadable(f"a value is impossible: {why}") from None


def to_toml(flat: Mapping[str, Value]) -> str:
    """Write flat keys as TOML lines that `read_toml` and `flwr run --run-config` read back.

    A key is in quotes where what is in front of its dot is a key itself, which TOML refuses.
    """
    quoted = {key: f'"{key}"' if key.rpartition(".")[0] in flat else key for key in flat}
    return "".join(
        f"{quoted[key]} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in flat.items()
    )


def parse_settings(settings: Iterable[str]) -> dict[str, Value]:
    """Read ``KEY=VALUE`` settings; a value is TOML, or else plain text.

    Raises:
        ConfigError: a setting without an equals sign.
    """
    flat: dict[str, Value] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {cut(repr(setting))} should look like KEY=VALUE")
        if "\n" in setting:
            raise ConfigError(
                f"--set {cut(repr(setting))} has several lines; give one --set for each knob"
            )
        try:
            value = _toml(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        except _Unreadable as error:
            raise ConfigError(f"--set {cut(setting)}: {error}") from None
        flat |= flatten({key.strip().strip('"'): value})
    return flat
