"""Federated, normalizer-free: the public face. A user's file imports `fl`, and nothing below it.

Each name is loaded when it is first used, so that a device needs only what it runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fl.reproducibility import shadowing

if TYPE_CHECKING:
    from fl.config import Experiment as Experiment
    from fl.config.parsing import ConfigError as ConfigError
    from fl.config.parts.contrasts import Contrasts as Contrasts
    from fl.config.parts.published import Published as Published
    from fl.data.own import Dataset as Dataset
    from fl.nn.convert import convert as convert
    from fl.nn.recipe import Place as Place
    from fl.nn.recipe import Recipe as Recipe
    from fl.reproducibility.seeds import stream as stream
    from fl.server.result import load_model as load_model
    from fl.server.watching.callback import Callback as Callback
    from fl.simulation.python import results as results
    from fl.simulation.python import run as run
    from fl.simulation.study import Study as Study
    from fl.simulation.study import each as each
    from fl.simulation.study import grid as grid
    from fl.tasks.metrics import Metric as Metric
    from fl.tasks.task import Task as Task
    from strategies.strategy import Strategy as Strategy

__version__ = "0.1.0"

shadowing.check()  # before anything is imported that needs our other packages

_HOMES = {
    "Callback": "fl.server.watching.callback",
    "ConfigError": "fl.config.parsing",
    "Contrasts": "fl.config.parts.contrasts",
    "Dataset": "fl.data.own",
    "Experiment": "fl.config",
    "Metric": "fl.tasks.metrics",
    "Place": "fl.nn.recipe",
    "Published": "fl.config.parts.published",
    "Recipe": "fl.nn.recipe",
    "Strategy": "strategies.strategy",
    "Study": "fl.simulation.study",
    "Task": "fl.tasks.task",
    "convert": "fl.nn.convert",
    "each": "fl.simulation.study",
    "grid": "fl.simulation.study",
    "load_model": "fl.server.result",
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
