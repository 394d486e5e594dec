"""Names for objects: what a user's program gives as a class or a function becomes a component.

A file on the disk is named. What is defined in a notebook is in no file: its source, and that of
all that it uses, is collected from the cells and written to a file in the user's cache.
"""

import ast
import builtins
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import platformdirs

from fl.config.components.modules import PREFIX
from fl.config.components.names import KEYS
from fl.config.parsing import ConfigError, Value
from fl.reproducibility.files import write_whole


def named(thing: object) -> str:
    """Return the name of a component, given its name or the object itself.

    Args:
        thing: a text, which is returned as it is; a class, a function, or a value of a module, as
            is a recipe; or what has a method `keep` that writes it down and returns a name; or
            several of these.

    Raises:
        ConfigError: it is defined where nobody else finds it, such as inside a function.
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, list | tuple):
        return ", ".join(map(named, thing))
    if isinstance(thing, Value) or thing is None:
        raise ConfigError(f"{thing!r} is no component: expected a name, a class or a function")
    if not isinstance(thing, type) and callable(keep := getattr(thing, "keep", None)):
        return keep()
    module, name = _found(thing)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        return f"{_written(module, name, thing)}:{name}"
    if module.__name__.startswith(PREFIX) or "." not in module.__name__:
        return f"{file}:{name}"
    return f"{module.__name__}:{name}"


def with_names(flat: Mapping[str, object]) -> dict[str, Any]:
    """Return flat keys with a name for every object where a component can be named."""
    return {key: named(value) if key in KEYS else value for key, value in flat.items()}


def _found(thing: object) -> tuple[ModuleType, str]:
    """Return the module in which an object is defined, and its name there.

    Raises:
        ConfigError: there is none.
    """
    name, home = getattr(thing, "__qualname__", ""), getattr(thing, "__module__", "")
    if name and home in sys.modules:
        if "<" in name:
            raise ConfigError(
                f"{name} is defined inside a function; define it in a file's top level"
            )
        return sys.modules[home], name
    for module in list(sys.modules.values()):
        for key, value in list(getattr(module, "__dict__", {}).items()):
            if value is thing and not key.startswith("_"):
                return module, key
    raise ConfigError(f"{thing!r} has no name in any module; assign it to a variable there")


def _written(module: ModuleType, name: str, thing: object) -> Path:
    """Write the source of what is in no file to one, named by its content; returns its path."""
    text = "\n\n".join(_Collected(vars(module)).of(name.partition(".")[0], thing))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = platformdirs.user_cache_path("fednf") / "components" / f"cells_{digest}.py"
    if not path.is_file():
        write_whole(path, text + "\n")
    return path


class _Collected:
    """The definitions that an object needs, each after those that it needs itself.

    Args:
        names: what the cells have defined.
    """

    def __init__(self, names: dict[str, object]) -> None:
        self.names, self.done = names, dict[str, str]()

    def of(self, name: str, thing: object) -> list[str]:
        """Return the source of an object and of all that it uses, as it is defined under a name."""
        self._add(name, thing)
        return [text for text in self.done.values() if text]

    def _add(self, name: str, thing: object) -> None:
        if name in self.done:
            return
        self.done[name] = ""  # what uses itself
        text = self._defined(name, thing)
        for used in sorted(_free(text)):
            if used in self.names and not hasattr(builtins, used):
                self._add(used, self.names[used])
        del self.done[name]
        self.done[name] = text

    def _defined(self, name: str, thing: object) -> str:
        """Return the statement that makes a name what it is."""
        if isinstance(thing, ModuleType):
            return f"import {thing.__name__} as {name}"
        home = getattr(thing, "__module__", None)
        if isinstance(thing, type) or inspect.isfunction(thing):
            if home != "__main__":
                return f"from {home} import {thing.__name__} as {name}"
        elif isinstance(thing, Value) or thing is None:
            return f"{name} = {thing!r}"
        if found := _in_cells(name):
            return found
        raise ConfigError(f"the source of {name} can't be had; put it into a file")


def _in_cells(name: str) -> str | None:
    """Return the last statement of a notebook's cells that defines a name, None without one."""
    for cell in reversed(getattr(sys.modules["__main__"], "In", [])):
        try:
            tree = ast.parse(cell)
        except SyntaxError:  # a cell with commands of the notebook
            continue
        for node in reversed(tree.body):
            if name in _defines(node):
                first = min([node, *getattr(node, "decorator_list", [])], key=lambda n: n.lineno)
                return "\n".join(cell.splitlines()[first.lineno - 1 : node.end_lineno])
    return None


def _defines(node: ast.stmt) -> set[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        parts = ast.walk(node)
        return {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def _free(text: str) -> Iterator[str]:
    """Yield the names that a statement reads."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
