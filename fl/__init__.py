"""Federated, normalizer-free: the public face. A user's file imports `fl`, and nothing below it.

Each name is loaded when it is first used, so that a device needs only what it runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl.config import Experiment as Experiment
    from fl.config.parsing import ConfigError as ConfigError
    from fl.nn.recipe import Place as Place
    from fl.nn.recipe import Recipe as Recipe
    from fl.reproducibility.seeds import stream as stream
    from fl.simulation.python import results as results
    from fl.simulation.python import run as run
    from fl.simulation.study import Study as Study
    from fl.simulation.study import each as each
    from fl.simulation.study import grid as grid
    from strategies.strategy import Strategy as Strategy

__version__ = "0.1.0"

_HOMES = {
    "ConfigError": "fl.config.parsing",
    "Experiment": "fl.config",
    "Place": "fl.nn.recipe",
    "Recipe": "fl.nn.recipe",
    "Strategy": "strategies.strategy",
    "Study": "fl.simulation.study",
    "each": "fl.simulation.study",
    "grid": "fl.simulation.study",
    "results": "fl.simulation.python",
    "run": "fl.simulation.python",
    "stream": "fl.reproducibility.seeds",
}
"""The module that each public name is from."""

__all__ = [*_HOMES]  # pyrefly: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fl' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    try:
        found = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != _HOMES[name].rpartition(".")[0]:
            raise
        raise AttributeError(f"fl.{name} is not on a device, which only trains") from None
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
