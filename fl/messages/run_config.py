"""Flower's run config as an experiment."""

from collections.abc import Mapping

from fl.config import Experiment, components
from fl.config.parsing import Value
from fl.messages.flower_internals import bundle


def experiment(run_config: Mapping[str, Value]) -> Experiment:
    """Return the experiment of a run config.

    The files of components are those of the app that Flower runs. Without that, a file of the same
    name would win that lies in the folder in which Flower's SuperLink was started.

    Raises:
        ConfigError: as `Experiment.from_flat`.
    """
    folder = bundle()
    if folder is not None:
        run_config = components.beside(run_config, folder, first=True)
    return Experiment.from_flat(run_config)
