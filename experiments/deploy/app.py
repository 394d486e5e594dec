"""The app that a deployment's devices get: our packages, from where fednf is installed."""

import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import fl
from experiments.project.flower import SERVER, App, pyproject
from fl.config import Experiment
from fl.config.parsing import ConfigError

ROOT = Path(fl.__file__).parents[1]
ROOMS = ("fl", "strategies", "partitions")
LEFT_OUT = ("fl/data/sets", "fl/simulation", "fl/vectorized")
"""What devices don't run: it fetches data, simulates, or trains many clients in one program."""
_NO_CODE = ("__pycache__", "shipped", "py.typed")


def write_app(folder: Path, server: str = SERVER) -> None:
    """Write a Flower app: our packages and a `pyproject.toml`.

    Args:
        folder: must not exist.
        server: its server app, as module:attribute.
    """

    def ignored(place: str, names: list[str]) -> set[str]:
        left_out = {name for name in names if ROOT / place / name in dropped}
        return left_out.union(name for name in names if name in _NO_CODE)

    dropped = {ROOT / room for room in LEFT_OUT}
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=ignored)
    about = metadata.metadata("fednf")["Summary"]
    app = App("fednf", "fednf", fl.__version__, about, needed(), server)
    text = pyproject(app, Experiment().to_flat())
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def needed(extra: str = "") -> list[str]:
    """Return the names of the packages that fednf needs, and those of one of its extras.

    Raises:
        ConfigError: fednf runs without being installed, and does not know them.
    """
    try:
        lines = metadata.requires("fednf") or []
    except metadata.PackageNotFoundError:
        raise ConfigError("fednf is not installed here; install it with pip, see README") from None
    needs = [Requirement(line) for line in lines]
    return [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]


def main(folder: Path) -> None:
    """Write the app into a folder in the place of an older one, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        write_app(Path(name) / "app")
        if folder.exists():
            folder.rename(Path(name) / "older")
        (Path(name) / "app").rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
