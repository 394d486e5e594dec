"""Modules made from text: they run as if they were files of one folder, and nobody else's."""

import builtins
import importlib
import linecache
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType

from fl.config.components import sources
from fl.config.parsing import ConfigError

PREFIX = "fednf_component_"
"""Names of modules that are made here begin with it; behind it come digits of the source's hash."""


class Modules(InspectLoader):
    """The modules of one text of sources, made when they are first asked for.

    They see each other under the names that they import each other by, before anything that is
    installed under such a name, and nobody else sees them.

    Args:
        text: as from `as_text`.
    """

    def __init__(self, text: str) -> None:
        self.files = {
            key: content for key, content in sources.parse(text).items() if sources.is_file(key)
        }
        self.root = PREFIX + sources.digest(text)
        self._tops = {key.partition("/")[0].removesuffix(".py") for key in self.files}
        _made[self.root] = self
        package = ModuleType(self.root)
        package.__path__ = []
        sys.modules[self.root] = package

    def module(self, name: str) -> ModuleType:
        """Return a module by its dotted name.

        Raises:
            ConfigError: it raises an exception; the message has its file and line.
        """
        _loading.append(name)
        try:
            return importlib.import_module(f"{self.root}.{name}")
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.line_of(error)}{type(error).__name__}: {error}") from error
        finally:
            _loading.pop()

    def line_of(self, error: BaseException) -> str:
        """Return ``file:line: `` of the last line in these files that led to an error, if any."""
        places = {_place(key, content): key for key, content in self.files.items()}
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if frame.filename in places]
        return f"{places[mine[-1].filename]}:{mine[-1].lineno}: " if mine else ""

    def key(self, fullname: str) -> str | None:
        """Return the file of a module; None where it has none."""
        path = fullname.removeprefix(f"{self.root}.").replace(".", "/")
        return next((k for k in (f"{path}.py", f"{path}/__init__.py") if k in self.files), None)

    def is_package(self, fullname: str) -> bool:
        """Return whether a module is a folder."""
        key = self.key(fullname)
        return key is None or key.endswith("/__init__.py")

    def get_source(self, fullname: str) -> str | None:
        """Return the text of a module."""
        key = self.key(fullname)
        return self.files[key] if key else ""

    def get_code(self, fullname: str) -> CodeType:
        """Compile a module under the name of the file that it was read from."""
        key, source = self.key(fullname), self.get_source(fullname) or ""
        return compile(source, _place(key or fullname, source), "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Run a module, in which `import` finds its siblings."""
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        super().exec_module(module)

    def _import(
        self,
        name: str,
        globals: Mapping | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping | None = None,  # noqa: A002 - the same
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in self._tops:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.root}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.root}.{top}"]


_made: dict[str, Modules] = {}
_loading: list[str] = []


def being_loaded() -> str | None:
    """Return the name of the module that is being made right now; None outside of that."""
    return _loading[-1] if _loading else None


class _Finder(MetaPathFinder):
    """Finds the modules that `Modules` makes."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        """Return the spec of a module whose text is known."""
        root, _, inner = fullname.partition(".")
        made = _made.get(root)
        if made is None or not inner:
            return None
        key = made.key(fullname)
        folder = inner.replace(".", "/") + "/"
        if key is None and not any(file.startswith(folder) for file in made.files):
            return None
        spec = spec_from_loader(fullname, made, origin=key, is_package=made.is_package(fullname))
        if spec and key:
            spec.origin, spec.has_location = _place(key, made.files[key]), True
        return spec


sys.meta_path.append(_Finder())


@lru_cache(maxsize=64)
def modules(text: str) -> Modules:
    """Return the modules of a text, the same ones for equal texts."""
    return Modules(text)


def _place(key: str, content: str) -> str:
    """Return the path that a file was read from, or a name under which tracebacks show its text."""
    if (key, content) in sources.places:
        return sources.places[key, content]
    name = f"<component {key}>"
    linecache.cache[name] = len(content), None, content.splitlines(keepends=True), name
    return name
