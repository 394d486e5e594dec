"""The own parameters of components: found in their signatures, checked, and kept as one text."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from fl.config.components import sources
from fl.config.components.names import BESIDES, KEYS, is_component
from fl.config.parsing import ConfigError, Value, did_you_mean

PARTS = {
    "network": "network.kind",
    "task": "task.kind",
    "data": "data.name",
    "partition": "partition.kind",
    "strategy": "strategy.kind",
}
"""The parts whose knob `options` holds the own parameters of a component, and the knob that names
this component."""


def canonical(options: object) -> str:
    """Return options as the text that their knob holds: JSON with sorted keys, empty for none.

    Raises:
        ValueError: they are neither a table nor such a text, or a value is no plain one.
    """
    try:
        table = json.loads(options) if isinstance(options, str) and options else options or {}
    except ValueError:
        table = None
    if not isinstance(table, Mapping):
        raise ValueError("should be a table of options, such as {beta = 0.9}")
    for name, value in table.items():
        if not isinstance(value, Value):
            raise ValueError(f"{name}={value!r} is neither a number, text nor true/false")
    return json.dumps(dict(table), sort_keys=True, ensure_ascii=False) if table else ""


def parameters(key: str, component: Any) -> type[BaseModel]:
    """Return the parameters of a component that a user sets, as a pydantic model.

    They are those of its signature behind the arguments that it is called with anyhow, or the
    fields of its own pydantic model, the attribute `Options`.

    Args:
        key: the knob that names it.
        component: a class or a function; anything else has no parameters.

    Raises:
        ConfigError: it can't be called as such a component is.
    """
    if isinstance(own := getattr(component, "Options", None), type) and issubclass(own, BaseModel):
        return own
    fields: dict[str, Any] = {}
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    for parameter in _behind(key, component):
        if parameter.name in BESIDES.get(key, ()):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            config["extra"] = "allow"
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            kind = _PLAIN.get(parameter.annotation, Any)
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = kind, default
    return create_model("Options", __config__=config, **fields)


def part_of(component: Any) -> str:
    """Return the part that a component is for, as far as its signature tells."""
    for part, key in PARTS.items():
        if (first := KEYS[key]) and first == tuple(
            p.name for p in _signed(component)[: len(first)]
        ):
            return part
    return "strategy" if isinstance(component, type) else "data"


_PLAIN = {bool: bool, int: int, float: float, str: str}
_PLAIN |= {kind.__name__: kind for kind in tuple(_PLAIN)}  # where annotations are text


def _behind(key: str, component: Any) -> list[inspect.Parameter]:
    """Return the parameters of a component behind those that `KEYS` names."""
    first = KEYS[key]
    found = _signed(component)
    positional = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return [p for p in found if p not in positional[: len(first)]]
    if callable(component) and len(positional) < len(first):
        name, own = getattr(component, "__name__", component), ", ".join(p.name for p in found)
        raise ConfigError(
            f"{_line_of(component)}{name}({own}) is called as {name}({', '.join(first)}, options) "
            f"by {key}; give it these parameters first"
        )
    return [p for p in found if p not in positional[: len(first)]]


def _signed(component: Any) -> list[inspect.Parameter]:
    """Return the parameters of a component's signature; none where it has none."""
    try:
        return list(inspect.signature(component).parameters.values())
    except (TypeError, ValueError):  # what can't be called, and what is built in
        return []


def _line_of(component: Any) -> str:
    """Return ``file:line: `` of a component's definition, if it is known."""
    try:
        file, (_, line) = inspect.getsourcefile(component), inspect.getsourcelines(component)
    except (TypeError, OSError):
        return ""
    return f"{file}:{line}: " if file else ""


def check_options(key: str, component: Any, given: Mapping[str, Value]) -> None:
    """Check what is given for a component's own parameters.

    Args:
        key: the knob that names it.
        component: whose parameters they are; None for one of ours that has none.
        given: by name.

    Raises:
        ConfigError: the component has no such parameter, or it can't take the value.
    """
    part = key.partition(".")[0]
    if component is None:
        if given:
            raise ConfigError(f"{part}.options.{next(iter(given))}: {key} names no component")
        return
    model = parameters(key, component)
    open_ended = model.model_config.get("extra") == "allow"
    for name in given:
        if name not in model.model_fields and not open_ended:
            known = list(model.model_fields)
            hint = did_you_mean(name, known) if known else "it has none"
            raise ConfigError(f"unknown option {part}.options.{name}; {hint}")
    try:
        model.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or next(iter(given), "")
        complaint = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{part}.options.{name}={first['input']!r}: {complaint}") from None


def spelt_out(flat: Mapping[str, Value]) -> dict[str, Value]:
    """Return flat keys for readers: each option by its own key, and sources by their hash."""
    found = {}
    for key, value in flat.items():
        if key == "components":
            found |= {key: sources.digest(str(value))} if value else {}
        elif key.endswith(".options"):
            found |= {f"{key}.{k}": v for k, v in json.loads(str(value) or "{}").items()}
        else:
            found[key] = value
    return found


def with_options(flat: Mapping[str, Value]) -> dict[str, Value]:
    """Return flat keys with every ``PART.options.NAME`` put into the one key ``PART.options``."""
    found: dict[str, Value] = {}
    for key, value in flat.items():
        part, dot, name = key.partition(".options.")
        if not (dot and part in PARTS):
            found[key] = value
            continue
        text = found.get(f"{part}.options", flat.get(f"{part}.options", ""))
        found[f"{part}.options"] = canonical({**json.loads(canonical(text) or "{}"), name: value})
    return found


def replaced(before: Mapping[str, Value], changes: Mapping[str, Value]) -> dict[str, Value]:
    """Return flat keys with some changed; options go with the component that they were for."""
    kept = dict(before)
    for part, key in PARTS.items():
        if key in changes and changes[key] != before[key]:
            kept[f"{part}.options"] = ""
    kinds = before["network.kind"], changes.get("network.kind", before["network.kind"])
    if len({is_component(str(kind)) for kind in kinds}) > 1:
        del kept["recipe"]  # its default is another one for a network of one's own
    return with_options({**kept, **changes})
