"""Makes the folder of a user's project."""

import re
import shutil
import tempfile
from pathlib import Path
from string import Template

import fl
from experiments.project.flower import App, pyproject
from fl.config import Experiment
from fl.config.parsing import ConfigError, Value, read_toml

_TEMPLATES = Path(__file__).parent / "templates"
_FILES = ("model.py", "experiment.toml", "study.py")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


class _Text(Template):
    delimiter = "@"  # Markdown and the shell have taken $


def make(folder: Path) -> None:
    """Write a project that runs at once: whole, or not at all.

    Args:
        folder: must not exist. Its name becomes the name of the Flower app.

    Raises:
        ConfigError: the folder exists, or Flower allows no app of its name.
    """
    name = folder.absolute().name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't be a Flower app's name: take a letter, then letters, digits and "
            "hyphens, 32 characters at most"
        )
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as making:
        made = Path(making) / name
        made.mkdir()
        _write(made, name)
        made.rename(folder)


def _write(folder: Path, name: str) -> None:
    for file in _FILES:
        shutil.copyfile(_TEMPLATES / file, folder / file)
    shutil.copyfile(_TEMPLATES / "gitignore", folder / ".gitignore")
    given = read_toml(folder / "experiment.toml")
    fields = {"name": name, "clients": str(given["partition.clients"])}
    readme = (_TEMPLATES / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(_Text(readme).substitute(fields), encoding="utf-8")
    app = App(name, name, "0.1.0", "An experiment with fednf", [f"fednf>={fl.__version__}"])
    text = pyproject(app, _flower_s(given))
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def _flower_s(given: dict[str, Value]) -> dict[str, Value]:
    """Return all knobs of a Flower app: those given, the rest at their defaults.

    `flwr run` takes a component's options one by one, as `experiment.toml` has them, and then not
    the knob that holds them all.
    """
    knobs = {**Experiment().to_flat(), **given}
    one_by_one = {key.partition(".options.")[0] for key in given if ".options." in key}
    return {key: knobs[key] for key in knobs if key.removesuffix(".options") not in one_by_one}
