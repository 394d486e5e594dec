"""The `pyproject.toml` of a Flower app whose server and client are ours."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fl.config.parsing import Value

SERVER, CLIENT = "fl.server.app:app", "fl.client.app:app"


@dataclass(frozen=True)
class App:
    """What an app's `pyproject.toml` says besides its knobs."""

    name: str
    """Flower's name of the app: a letter, then letters, digits and hyphens, 32 at most."""
    publisher: str
    version: str
    description: str
    needs: Iterable[str]
    """The packages that it needs, as pip takes them."""
    server: str = SERVER
    """The server app, as module:attribute."""


def pyproject(app: App, knobs: Mapping[str, Value]) -> str:
    """Return an app's `pyproject.toml`.

    Args:
        app: what it says.
        knobs: by flat key. `flwr run` refuses knobs that are not there.
    """
    lines = [
        "[project]",
        f"name = {json.dumps(app.name)}",
        f"version = {json.dumps(app.version)}",
        f"description = {json.dumps(app.description)}",
        f"dependencies = {json.dumps([*app.needs])}",
        "",
        "[tool.flwr.app]",
        f"publisher = {json.dumps(app.publisher)}",
        "",
        "[tool.flwr.app.components]",
        f"serverapp = {json.dumps(app.server)}",
        f"clientapp = {json.dumps(CLIENT)}",
        "",
        *_tables(knobs),
    ]
    return "\n".join(lines)


def _tables(knobs: Mapping[str, Value], root: str = "tool.flwr.app.config") -> Iterable[str]:
    """Yield the lines of nested tables: first what has no part, then each part's.

    A key in quotes has none: what is in front of its dot is a knob itself, as in `"seed.deal"`.
    """
    tables: dict[str, list[str]] = {"": []}
    for key, value in knobs.items():
        part, _, name = key.rpartition(".")
        if part in knobs:
            part, name = "", f'"{key}"'
        tables.setdefault(part, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    for part, lines in tables.items():
        yield f"[{root}.{part}]" if part else f"[{root}]"
        yield from lines
        yield ""
