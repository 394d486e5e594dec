"""Runs from Python, as in a notebook: start one, and read what runs have left."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl.config import Experiment
from fl.config.components import KEYS
from fl.config.components.modules import being_loaded
from fl.config.parsing import ConfigError, flatten
from fl.reproducibility.files import at_home
from fl.server.journal import EXPERIMENT, Journal
from fl.server.watching.callback import Callback
from fl.simulation.run import run as simulate


def run(
    knobs: Experiment | Mapping[str, object],
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    debug: bool = False,
) -> dict[str, Any]:
    """Run an experiment on this machine, and return its result.

    It does what `fednf run` does, and prints nothing. A knob that takes a component also takes the
    object itself: a class or a function, an `fl.Dataset`, an `fl.Recipe`.

    >>> import fl
    >>> result = fl.run({"rounds": 1, "sampling.clients": 2, "network.depth": 3}, out="runs/first")
    >>> round(result["final_accuracy"], 1) > 0
    True

    Args:
        knobs: an experiment, or knobs by flat key or as nested tables; the others keep their
            defaults.
        out: the run's folder; None: one below `runs` that is named by the experiment.
        workers: processes that train clients; None: a core each, or one for a short run.
        callbacks: are told of the run while it is under way.
        resume: whether an unfinished run in that folder is gone on with.
        debug: train in this process, and raise a client's first exception as it is.

    Returns:
        What `result.json` says, and `folder`. A finished run is not run again.

    Raises:
        ConfigError: the knobs, the data or the folder don't allow it; nothing was written.
        RunFailed: the run has a bug, or no reply could be used in any round.
    """
    if name := being_loaded():
        raise ConfigError(
            f"{name}.py calls fl.run while what is your own is taken from it; put the call below "
            'if __name__ == "__main__":'
        )
    experiment = knobs if isinstance(knobs, Experiment) else experiment_of(knobs)
    folder = at_home(out) if out else default_folder(experiment)
    command = f"fl.run(out={str(folder)!r})"
    how: dict[str, Any] = {"workers": workers, "resume": resume, "debug": debug}
    how["callbacks"] = callbacks
    result = simulate(experiment, Journal(folder), command=command, **how)
    return {**result, "folder": str(folder)}


def experiment_of(knobs: Mapping[str, object]) -> Experiment:
    """Return the experiment of knobs by flat key or in nested tables, with objects among them.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible combination.
    """
    leaves = dict(_leaves(knobs))
    objects = {key: value for key, value in leaves.items() if key in KEYS}
    plain = flatten({key: value for key, value in leaves.items() if key not in KEYS})
    return Experiment.from_flat({**plain, **objects})


def _leaves(tables: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every value in nested tables under its flat key."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def default_folder(experiment: Experiment) -> Path:
    """Return the folder of a run for which none was chosen: the same for equal experiments."""
    recipe = experiment.recipe.replace(":", "-")
    return Path("runs") / f"{recipe}_seed-{experiment.seed}_{experiment.identity[:8]}"


class Rows(list[dict[str, Any]]):
    """Rows of a table; each is a dictionary, and they need not have the same keys."""

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a column for each key.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas  # which fednf does not need otherwise

        return pandas.DataFrame(list(self))

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, with a column for each key."""
        text = io.StringIO()
        keys = dict.fromkeys(key for row in self for key in row)
        writer = csv.DictWriter(text, list(keys), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self)
        return text.getvalue()


class Results(Rows):
    """The runs below a folder, a row for each: its folder, its knobs, its result.

    Args:
        folder: of a run, of a study or of many.

    Raises:
        ConfigError: there is no run, or a file of one is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self._journals = [
            Journal(path.parent) for path in sorted(at_home(folder).rglob(EXPERIMENT))
        ]
        if not self._journals:
            raise ConfigError(f"{folder} holds no run (no {EXPERIMENT} in it or below)")
        super().__init__(map(_row, self._journals))

    def rounds(self) -> Rows:
        """Return a row for each round of each run: the keys of `rounds.jsonl`, and `folder`."""
        return self._lines(Journal.rounds)

    def clients(self) -> Rows:
        """Return a row for each client in each round: the keys of `clients.jsonl`, and `folder`."""
        return self._lines(Journal.clients)

    def _lines(self, of: Callable[[Journal], list[dict]]) -> Rows:
        return Rows(
            {"folder": str(journal.folder), **line}
            for journal in self._journals
            for line in of(journal)
        )


def results(folder: str | Path) -> Results:
    """Return the runs below a folder, finished and unfinished, as rows; see `Results`.

    >>> import fl
    >>> _ = fl.run({"rounds": 1, "sampling.clients": 2, "network.depth": 3}, out="runs/first")
    >>> rows = fl.results("runs")
    >>> rows[0]["recipe"], rows[0]["finished"]
    ('zc-swish', True)
    >>> [row["round"] for row in rows.rounds()]
    [0, 1]
    """
    return Results(folder)


def _row(journal: Journal) -> dict[str, Any]:
    header, result = journal.header(), journal.result()
    about = {"folder": str(journal.folder), "finished": result is not None}
    about |= {key: header[key] for key in ("identity", "code_sha256")}
    return {**about, **header["knobs"], **(result or {})}
