"""The source of a user's components: gathered from files, kept as text, and run as modules.

The source of an experiment's components is one text: JSON that maps each file to its content, and
each installed package to its version. The text is the knob `components`, so it is part of the
experiment's identity and goes wherever the knobs go: to worker processes, to Ray's actors, into a
run's folder and onto devices. There the modules are made from the text, and no file is needed.
"""

import ast
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fl.config.parsing import ConfigError

_OURS = ("fl", "strategies", "partitions", "experiments")
_NEVER = ("fl", "torch", "numpy")
"""What a file imports by these names is what is installed, whatever lies beside it."""
_MOST = 2**20
"""Bytes of all sources together: they travel with every request."""
places: dict[tuple[str, str], str] = {}
"""(file, content) -> where this process read it, so that tracebacks and debuggers find the file."""


def gather(file: Path, name: str = "") -> dict[str, str]:
    """Return a file and what it imports from its own folder, however indirectly: file -> content.

    Args:
        file: a Python file. Names of the files are relative to its folder.
        name: the dotted name of the file's module where it is part of a package. Names are then
            relative to the folder that holds the package.

    Raises:
        ConfigError: a file can't be read, is no Python, or all together are too large.
    """
    path = file.resolve()
    levels = name.count(".") + (path.name == "__init__.py") if name else 0
    root = path.parents[levels]

    def read(key: str) -> str | None:
        place = root / key
        if key.partition("/")[0].removesuffix(".py") in _NEVER or _is_ours(root, key):
            return None
        if not place.is_file():
            return None
        text = _read(place)
        places[key, text] = str(place)
        return text

    found = closure(path.relative_to(root).as_posix(), read)
    if (size := sum(map(len, found.values()))) > _MOST:
        raise ConfigError(f"{file} and what it imports have {size:,} bytes, at most {_MOST:,}")
    return found


def closure(start: str, read: Callable[[str], str | None]) -> dict[str, str]:
    """Return a file and all that it imports of what can be read: file -> content.

    Args:
        start: the file.
        read: returns the content of a file, None where there is none of that name.
    """
    found, todo = dict[str, str](), [start]
    while todo:
        key = todo.pop()
        if key in found or (text := read(key)) is None:
            continue
        found[key] = text
        *folders, _ = key.split("/")
        todo += ["/".join([*folders[:n], "__init__.py"]) for n in range(1, len(folders) + 1)]
        for dotted in _imported(ast.parse(text), folders):
            path = "/".join(dotted)
            todo += [f"{path}.py", f"{path}/__init__.py"]
    return found


def _read(path: Path) -> str:
    """Return the text of a Python file."""
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read {path}: {error}") from None
    return text


def _imported(tree: ast.Module, folders: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the dotted names, in parts, that a module in some folders imports, or may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from _each_level([], [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            start = list(folders[: len(folders) - node.level + 1]) if node.level else []
            module = f"{node.module}." if node.module else ""
            yield from _each_level(start, [f"{module}{alias.name}" for alias in node.names])


def _each_level(start: Sequence[str], dotted: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield a dotted name and all that it begins with: of ``a.b`` also ``a``."""
    for name in dotted:
        parts = name.split(".")
        yield from ([*start, *parts[:depth]] for depth in range(1, len(parts) + 1))


def _is_ours(root: Path, key: str) -> bool:
    """Return whether a file is in one of this framework's own packages."""
    top = key.partition("/")[0]
    return top in _OURS and (root / top).resolve() == Path(__file__).parents[3] / top


def of_module(name: str) -> dict[str, str]:
    """Return the source of a module by its dotted name, or where it is installed its version.

    Raises:
        ConfigError: there is no such module, or it has no source.
    """
    top = name.partition(".")[0]
    try:
        spec = find_spec(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"no module {name}: {error}") from None
    if spec is None or not spec.origin:
        raise ConfigError(f"no module {name}; expected path/file.py:name or package.module:name")
    if top in sys.stdlib_module_names:
        return {"python": platform.python_version()}
    if installed := _distribution(top):
        return dict([installed])
    if not spec.origin.endswith(".py"):
        raise ConfigError(f"module {name} has no Python source: {spec.origin}")
    return gather(Path(spec.origin), name)


@lru_cache(maxsize=64)
def _distribution(top: str) -> tuple[str, str] | None:
    """Return which distribution an installed package is from, and its version.

    Finding that takes half a second.
    """
    name = next(iter(metadata.packages_distributions().get(top, ())), None)
    return (name, metadata.version(name)) if name else None


def as_text(sources: Mapping[str, str]) -> str:
    """Return sources as one text; empty where there are none."""
    return json.dumps(sources, sort_keys=True, ensure_ascii=False) if sources else ""


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    return json.loads(text) if text else {}


def parse(text: str) -> dict[str, str]:
    """Return the sources in a text.

    Raises:
        ConfigError: it is not what `as_text` returns.
    """
    try:
        return {str(file): str(content) for file, content in _parsed(text).items()}
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"components: expected what fednf writes there ({error})") from None


def digest(text: str) -> str:
    """Return the first digits of the SHA-256 of sources."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_file(key: str) -> bool:
    """Return whether a key of sources is a file, and not a package."""
    return key.endswith(".py")


def abridged(text: str) -> str:
    """Return a text with the hash of each file in the place of its content."""
    return as_text(
        {
            key: hashlib.sha256(content.encode()).hexdigest() if is_file(key) else content
            for key, content in parse(text).items()
        }
    )


def restored(text: str, folder: Path) -> str:
    """Undo `abridged`, given the folder that the files were written to.

    Raises:
        ConfigError: a file is gone or has changed.
    """
    sources = parse(text)
    for key, wanted in sources.items():
        if is_file(key):
            path = folder / key
            try:
                sources[key] = path.read_bytes().decode()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"can't read {path}: {error}") from None
            if hashlib.sha256(sources[key].encode()).hexdigest() != wanted:
                raise ConfigError(f"{path} is not as the run wrote it; choose another folder")
    return as_text(sources)


def change(before: str, after: str) -> str | None:
    """Say in words what differs between two texts; None where nothing does."""
    old, new = parse(before), parse(after)
    for key in sorted(old.keys() | new.keys()):
        if (was := old.get(key)) == (now := new.get(key)):
            continue
        if was is None or now is None:
            return f"{key} is {'new' if was is None else 'no longer there'}"
        if not is_file(key):
            return f"{key} was {was}, is {now}"
        lines = zip([*was.splitlines(True), None], [*now.splitlines(True), None], strict=False)
        line = next(number for number, (a, b) in enumerate(lines, 1) if a != b)
        return f"{key} has changed, at first in line {line}"
    return None
