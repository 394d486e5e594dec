"""Find the packages that `fl` needs beside it, also where a user's folder has one's name.

Python looks for packages in the folder of the program that runs, then in what is installed. A
project with a folder `strategies/` of its own therefore hides ours from a script, a notebook, a
Ray worker and a Flower app that run in it. The command `fednf` looks there only if `PYTHONPATH`
says so.
"""

import os
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = str(Path(__file__).parents[2])
"""The folder that `fl` was imported from, with all of our packages in it."""
NEEDED = ("strategies", "partitions")
"""The packages that `fl` imports."""


class _Ours(MetaPathFinder):
    """Finds some packages where `fl` is, before anything else is asked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of those packages, None for anything else."""
        return PathFinder.find_spec(fullname, [ROOT]) if fullname in self.names else None


_finder = _Ours()


def check() -> None:
    """Let `fl` find its own packages; tell of a folder that has the name of one.

    It is told in one line, a warning: `import strategies` then gives ours and not the user's.

    Raises:
        ImportError: the program has imported such a folder before `fl`, which can't be undone.
    """
    for name in NEEDED:
        folder = _other(name)
        if folder is None:
            continue
        if name in sys.modules:
            raise ImportError(
                f"{folder} was imported before fl and has the name of fednf's package {name}; "
                "rename yours"
            )
        prefer([name])
        warnings.warn(
            f"{folder} has the name of fednf's package {name}, which is what `import {name}` gives "
            "from here on; rename yours to import it",
            stacklevel=3,
        )


def prefer(names: list[str]) -> None:
    """Have packages imported from where `fl` is, whatever has their names elsewhere."""
    _finder.names.update(names)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _other(name: str) -> str | None:
    """Return the folder or file that is found under a package's name and is not ours."""
    if name in _finder.names:
        return None
    module = sys.modules.get(name)
    spec = module.__spec__ if module else PathFinder.find_spec(name)
    if spec is None or spec.origin is None:  # a folder without __init__.py hides nothing
        return None
    package = spec.origin.removesuffix(f"{os.sep}__init__.py")
    ours = os.path.join(ROOT, name)
    return None if os.path.realpath(package) == os.path.realpath(ours) else package
