"""The names of components, and the one function that turns a name into an object: `find`."""

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from fl.config.components import sources
from fl.config.components.modules import modules
from fl.config.parsing import ConfigError, Value, did_you_mean
from fl.reproducibility.errors import cut, in_words
from fl.reproducibility.files import at_home

KEYS: dict[str, tuple[str, ...]] = {
    "network.kind": ("shape", "classes"),
    "recipe": (),
    "task.kind": (),
    "task.loss": ("outputs", "labels"),
    "task.metrics": (),
    "data.name": (),
    "partition.kind": ("labels", "clients", "rng"),
    "strategy.kind": (),
}
"""The knobs that take a component, and the arguments with which each is called before its options.
`task.metrics` takes several components, separated by commas."""
BESIDES: dict[str, tuple[str, ...]] = {"partition.kind": ("domains",)}
"""Arguments with which a component is called too, by name, if it takes them."""
_SCHEMES = ("hf", "medmnist", "kept")
"""What stands before a colon in names that are no components."""
_PACKAGES = ("timm", "torchvision")
"""Packages whose networks have names that are no attributes of a module."""
_NAME = re.compile(r"(?P<place>[^:,]+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_][\w.]*)")


def is_component(text: str) -> bool:
    """Return whether a text is the name of a component, and not of something of ours."""
    found = _NAME.fullmatch(text)
    return found is not None and found["place"] not in _SCHEMES


def _is_named_right(text: str) -> str:
    if not is_component(text):
        file = text.strip().removesuffix(":")
        hint = f"; say what in the file: {cut(file)}:NAME" if file.endswith(".py") else ""
        raise ValueError(
            f"or the name of a component: path/file.py:name or package.module:name{hint}"
        )
    return text


Component = Annotated[str, AfterValidator(_is_named_right)]
"""The name of a component."""


def names(text: str) -> list[str]:
    """Return the components in a knob's value, of which commas separate several."""
    return [name for name in (part.strip() for part in text.split(",")) if is_component(name)]


@dataclass(frozen=True)
class FromPackage:
    """A network of an installed package, which is made by `fl.nn.foreign.packages`."""

    package: str
    name: str

    class Options(BaseModel, extra="allow"):
        """The options of the package's own function."""


def get(tables: Mapping, key: str) -> object:
    """Return what nested tables, or parts, have under a flat key; None where they have nothing."""
    part, _, name = key.rpartition(".")
    inner = tables.get(part) if part else tables
    return inner.get(name) if isinstance(inner, Mapping) else getattr(inner, name, None)


def put(tables: Mapping, values: Mapping[str, object]) -> dict:
    """Return nested tables, or parts, with other values under flat keys that they have."""
    found = dict(tables)
    for key, value in values.items():
        part, _, name = key.rpartition(".")
        if not part:
            found[name] = value
        elif isinstance(inner := found[part], Mapping):
            found[part] = {**inner, name: value}
        else:
            found[part] = inner.model_copy(update={name: value})
    return found


def located(text: str, folder: Path, *, first: bool = False) -> str:
    """Return a knob's value whose files are looked for in a folder, too.

    Args:
        text: the value.
        folder: where they may be.
        first: whether a file there wins over one of that name here.
    """
    for name in names(text):
        place = _place(name)
        there = place.endswith(".py") and _is_file(folder / place)
        if there and (first or not _is_file(at_home(place))):
            text = text.replace(name, f"{folder / place}:{name.rpartition(':')[2]}")
    return text


def beside(flat: Mapping[str, Value], folder: Path, *, first: bool = False) -> dict[str, Value]:
    """Return flat keys of a file whose components may lie in its own folder, see `located`."""
    return {k: located(str(v), folder, first=first) if k in KEYS else v for k, v in flat.items()}


def _is_file(path: Path) -> bool:
    """Return whether a file is there; a name that is too long for one is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _place(name: str) -> str:
    return name.rpartition(":")[0]


def gather(values: Mapping[str, str], known: str) -> tuple[dict[str, str], str]:
    """Read the source of all components of an experiment.

    Args:
        values: the knobs that may name components.
        known: sources that were read before; a file in them is not read again.

    Returns:
        The values as they are from here on, with files named without their folders, and the
        sources of what they name.

    Raises:
        ConfigError: a file or a module is not there, or two files have one name.
    """
    there, found = sources.parse(known), dict[str, str]()
    values = dict(values)
    for key, text in values.items():
        for name in names(text):
            short, own = _gathered(key, name, there)
            for file, content in own.items():
                if found.setdefault(file, content) != content:
                    raise ConfigError(
                        f"{key}={name}: another component has a file {file}, too, with other "
                        "content; rename one"
                    )
            text = text.replace(name, short)
        values[key] = text
    return values, sources.as_text(found)


def _gathered(key: str, name: str, there: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return a component's name without its folder, and its sources."""
    place, _, attribute = name.rpartition(":")
    for start in _files(place):
        if start in there:
            return name, sources.closure(start, there.get)
    if not place.endswith(".py"):
        if place in _PACKAGES and find_spec(place) is None:
            raise ConfigError(f"{key}={name}: {place} is not installed; pip install {place}")
        try:
            return name, sources.of_module(place)
        except ConfigError as error:
            raise ConfigError(f"{key}={name}: {error}") from None
    around = (Path(), *map(Path, sys.path))
    path = next((p for p in (folder / at_home(place) for folder in around) if _is_file(p)), None)
    if path is None:
        raise ConfigError(f"{key}={name}: no file {place} here ({Path.cwd()})")
    return f"{path.name}:{attribute}", sources.gather(path)


def _files(place: str) -> list[str]:
    """Return the files, as keys of sources, in which a component's place may be."""
    if place.endswith(".py"):
        return [place]
    path = place.replace(".", "/")
    return [f"{path}.py", f"{path}/__init__.py"]


_run: set[str] = set()


def was_run(text: str) -> bool:
    """Return whether this process has run components of these sources before."""
    return text in _run


@lru_cache(maxsize=64)
def find(key: str, name: str, text: str) -> Any:
    """Return the object that a component's name stands for, the same one for equal sources.

    Args:
        key: the knob, for messages.
        name: the component's, without its folder.
        text: the sources.

    Raises:
        ConfigError: its file raises an exception, or has nothing of that name.
    """
    _run.add(text)
    place, _, attribute = name.rpartition(":")
    if key == "network.kind" and place in _PACKAGES:
        return FromPackage(place, attribute)
    made = modules(text)
    if any(file in made.files for file in _files(place)):
        module = made.module(place.removesuffix(".py"))
    else:
        module = _installed(key, name, place)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        public = [word for word in vars(module) if not word.startswith("_")]
        hint = did_you_mean(attribute, public)
        raise ConfigError(f"{key}={name}: {place} has no {attribute}; {hint}") from None


def _installed(key: str, name: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise ConfigError(f"{key}={name}: {in_words(error)}") from None
