"""Weights & Biases, offline: a folder a run, which `wandb sync` sends."""

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from experiments.trackers.figures import figures, shortened
from fl.server.watching.callback import Callback, Line, RunInfo


class WandB(Callback):
    """Writes the knobs of a run as its config and the figures of every round as its history.

    The project has the name of the folder around the run's: a study's name. Nothing is sent.
    A resumed run is written anew from its first round, in a folder that takes the place of the
    former one, since an offline run can't be gone on with.

    Args:
        folder: holds `wandb/offline-run-*`. Default: the current one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path.cwd()

    def run_begun(self, run: RunInfo) -> None:
        """Open a folder for the run, and remove the former one."""
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        what = f"{run.folder.absolute()} {run.knobs.identity}"
        number = hashlib.sha256(what.encode()).hexdigest()[:16]
        former = sorted((self._folder / "wandb").glob(f"offline-run-*-{number}-*"))
        self._run = wandb.init(
            mode="offline",
            dir=self._folder,
            project=run.folder.parent.name or "fednf",
            name=run.folder.name,
            id=f"{number}-{time.time_ns():x}",  # W&B may still hold that of a killed process
            config=shortened(run.knobs.to_flat()),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
            ),
        )
        for path in former:
            shutil.rmtree(path)

    def round_done(self, line: Line) -> None:
        """Log a round."""
        self._run.log(figures(line), step=line["round"])

    def run_ended(self, result: Mapping) -> None:
        """Write the result as the run's summary, and close it."""
        self._run.summary.update({k: v for k, v in result.items() if v is not None})
        self._run.finish(exit_code=0)

    def run_stopped(self, reason: str) -> None:
        """Close the run as one that failed."""
        self._run.finish(exit_code=1)
