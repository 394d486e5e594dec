"""MLflow: a database in a file, which `mlflow ui` draws."""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.trackers.figures import figures, shortened
from fl.server.watching.callback import Callback, Line, RunInfo

_TAG = "fednf.run"
_MOST = 100
"""Parameters that MLflow takes at a time."""


class MLflow(Callback):
    """Writes the knobs of a run as parameters and the figures of every round as metrics.

    The experiment has the name of the folder around the run's: a study's name. A resumed run goes
    on with its entry, and logs only what is not there yet.

    Args:
        folder: holds `mlflow.db`. Default: the current one, where `mlflow ui` looks for it, too.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path.cwd()
        self._there: dict[str, set[int]] = {}

    def run_begun(self, run: RunInfo) -> None:
        """Find the run's entry, or make it."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._folder.mkdir(parents=True, exist_ok=True)
        with _alone(self._folder / "mlflow.lock"):  # the first to come makes the tables
            self._client = MlflowClient(f"sqlite:///{self._folder / 'mlflow.db'}")
            self._id = self._entry(run)
        self._resumed = run.resumed_after is not None
        knobs = [Param(key, str(v)) for key, v in shortened(run.knobs.to_flat()).items() if v != ""]
        for first in range(0, len(knobs), _MOST):
            self._client.log_batch(self._id, params=knobs[first : first + _MOST])

    def round_done(self, line: Line) -> None:
        """Log a round."""
        from mlflow.entities import Metric

        number, now = line["round"], int(1000 * time.time())
        told = [
            Metric(name, value, now, number)
            for name, value in figures(line).items()
            if number not in self._known(name)
        ]
        self._client.log_batch(self._id, metrics=told)

    def run_ended(self, result: object) -> None:
        """Mark the entry as finished."""
        self._client.set_terminated(self._id, "FINISHED")

    def run_stopped(self, reason: str) -> None:
        """Mark the entry as failed or, after Ctrl-C, as killed."""
        self._client.set_terminated(self._id, "KILLED" if reason == "interrupted" else "FAILED")

    def _entry(self, run: RunInfo) -> str:
        """Return the id of the run's entry; one of a former run, whose folder is gone, is left."""
        name, tag = run.folder.parent.name or "fednf", f"{run.folder} {run.knobs.identity}"
        found = self._client.get_experiment_by_name(name)
        artifacts = (self._folder / "mlartifacts").as_uri()
        if found is None:
            number = self._client.create_experiment(name, artifact_location=artifacts)
        else:
            number = found.experiment_id
        if run.resumed_after is not None:
            there = self._client.search_runs([number], f"tags.`{_TAG}` = '{tag}'", max_results=1)
            if there:  # the newest comes first
                self._client.update_run(there[0].info.run_id, status="RUNNING")
                return there[0].info.run_id
        made = self._client.create_run(number, run_name=run.folder.name, tags={_TAG: tag})
        return made.info.run_id

    def _known(self, name: str) -> set[int]:
        """Return the rounds of which a figure is there."""
        if name not in self._there:
            history = self._client.get_metric_history(self._id, name) if self._resumed else []
            self._there[name] = {entry.step for entry in history}
        return self._there[name]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with this file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
