"""The command about projects: ``fednf new``."""

from pathlib import Path

from experiments.cli.terminal import say
from experiments.project.folder import make


def new(folder: Path) -> None:
    """Make a project of your own that runs at once: a network, an experiment, a study."""
    make(folder)
    say(f"{folder} is a project that runs at once; {folder / 'README.md'} says more. Go on with:")
    say(f"  cd {folder}")
    say("  fednf run --config experiment.toml")
    say("  fednf study study.py")
