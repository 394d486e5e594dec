"""Knobs as objects and as text: flat keys, TOML files and KEY=VALUE settings."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

Value = bool | int | float | str
"""What Flower lets a run config hold."""


class ConfigError(ValueError):
    """A knob that does not exist, or a value that it can't take; the message is one line."""


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the nearest of the known names, or where none is near, all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def flatten(tables: Mapping[str, object], prefix: str = "") -> dict[str, Value]:
    """Turn nested tables into flat dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Value] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Value):
            flat[prefix + key] = value
        else:
            raise ConfigError(f"{prefix}{key}={value!r} is neither a number, text nor true/false")
    return flat


def unflatten(flat: Mapping[str, Value]) -> dict[str, object]:
    """Turn flat keys of at most one dot into nested tables."""
    tables: dict[str, object] = {}
    for key, value in flat.items():
        table, _, name = key.rpartition(".")
        if table:
            tables.setdefault(table, {})[name] = value  # pyrefly: ignore
        else:
            tables[key] = value
    return tables


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
    return f"{key}={first['input']}: {complaint} (the default is {defaults[key]})"


def read_toml(path: Path) -> dict[str, Value]:
    """Read a TOML file of knobs, nested or flat, into flat keys.

    Raises:
        ConfigError: the file can't be read, or isn't TOML.
    """
    try:
        return flatten(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"can't read {path} as TOML: {error}") from None


def to_toml(flat: Mapping[str, Value]) -> str:
    """Write flat keys as TOML lines that `read_toml` and `flwr run --run-config` read back."""
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in flat.items()
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
            raise ConfigError(f"--set {setting!r} should look like KEY=VALUE")
        if "\n" in setting:
            raise ConfigError(f"--set {setting!r} has several lines; give one --set for each knob")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        flat |= flatten({key.strip(): value})
    return flat
