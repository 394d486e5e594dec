"""Trackers: callbacks that write the figures of a run where TensorBoard, MLflow or W&B reads them.

Each needs a package that a device does not have, and is loaded when it is asked for. All of them
work without a network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from experiments.trackers.mlflow import MLflow as MLflow
from experiments.trackers.tensorboard import TensorBoard as TensorBoard
from experiments.trackers.wandb import WandB as WandB
from fl.config.parsing import ConfigError, did_you_mean
from fl.server.watching import callback
from fl.server.watching.callback import Callback

TRACKERS: dict[str, Callable[[Path | None], Callback]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
"""The trackers by name, which is that of the package that each needs, and of the extra."""


def watchers(tracks: Sequence[str], callbacks: Sequence[str]) -> list[Callable[[], Callback]]:
    """Return what makes the callbacks of a run; it can be sent to another process.

    Args:
        tracks: ``NAME`` or ``NAME:DIR`` of trackers.
        callbacks: ``path/file.py:Name`` or ``package.module:Name`` of callbacks.

    Raises:
        ConfigError: there is no such tracker or callback, or its package is not installed.
    """
    made: list[Callable[[], Callback]] = []
    for text in tracks:
        name, _, folder = text.partition(":")
        if name not in TRACKERS:
            raise ConfigError(f"no tracker {name}; {did_you_mean(name, TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(
                f"--track {name} needs a package that is not here: pip install 'fednf[{name}]'"
            )
        made.append(partial(TRACKERS[name], Path(folder).absolute() if folder else None))
    for text in callbacks:
        callback.found(text)
        made.append(partial(callback.make, text))
    return made
