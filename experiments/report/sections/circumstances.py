"""Under which circumstances runs came about, where these disagree, and who held which classes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

import partitions
from experiments.report import labels, words
from experiments.report.results import Run
from fl.config import Experiment, components
from fl.config.parsing import ConfigError, flatten
from fl.data import Dataset, deal, load
from fl.data.dataset import said
from fl.data.shares import named_classes
from fl.nn import relevant
from fl.reproducibility.files import fingerprint


@dataclass(frozen=True)
class Deal:
    """Who held which classes, in one distinct deal."""

    partition: str
    """In words."""
    seed: int
    counts: np.ndarray
    """Images by client and class."""
    classes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its partition and seed."""
        return f"{self.partition}, seed {self.seed}"


def of(run: Run) -> dict[str, str]:
    """Return the code, packages, machine and data of a run, by name in words."""
    header = run.header
    found: dict[str, object] = {
        "fednf": header.get("version"),
        "code (SHA-256)": str(header.get("code_sha256", ""))[:16],
        "Python": header.get("python"),
        "runtime": header.get("runtime"),
    }
    for table in ("packages", "machine"):
        there = header.get(table, {})
        if isinstance(there, Mapping):
            found |= {key.replace("_", " "): value for key, value in flatten(there).items()}
    if resumed := header.get("resumed"):
        changes = [
            f"after round {part['after_round']}: {str(part['code_sha256'])[:16]}, "
            + ", ".join(f"{name} {version}" for name, version in part["packages"].items())
            for part in resumed  # pyrefly: ignore
        ]
        found["went on with other code or packages"] = "; ".join(changes)
    data = labels.data_set(run.knobs.get("data.name"))
    found[f"data: {data} (SHA-256)"] = str(header.get("data_sha256", ""))[:16]
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def disagreements(runs: Iterable[Run]) -> list[str]:
    """Say in what the circumstances of runs differ that should be alike: a line each."""
    described = []
    for run in runs:
        knobs = sorted(relevant(run.knobs).items())
        partition = ", ".join(f"{k}={v}" for k, v in knobs if k.startswith("partition."))
        dealt_by, *_ = labels.seeds(run.knobs)
        dealt = f"deal of {run.knobs.get('data.name')}, {partition}, seed {dealt_by}"
        deal_sha256 = str(run.header.get("deal_sha256", ""))[:16]
        described.append(of(run) | {dealt: deal_sha256})
    lines = []
    for name in labels.varying(described):
        found = Counter(one[name] for one in described if name in one)
        values = [f"{value} ({words.count(n, 'run')})" for value, n in sorted(found.items())]
        lines.append(f"{name}: {', '.join(values)}")
    return lines


_DEALT_BY = ("data.name", "task.kind", "task.loss", "task.metrics", "partition.kind")
"""The knobs whose components it takes to load data and to deal them."""


def experiment(run: Run) -> Experiment:
    """Return a run's knobs as far as data and deal go by them, without running its own code.

    A run's folder holds code, and it may be somebody else's folder. What this process has run
    before, such as a study that now writes its report, it runs again.

    Raises:
        ConfigError: data or deal take code that this process has not run.
    """
    knobs = run.knobs
    own = {key for key in components.KEYS if components.names(str(knobs.get(key, "")))}
    if not own or components.was_run(str(knobs.get("components", ""))):
        return Experiment.from_flat(knobs)
    if taken := own.intersection(_DEALT_BY):
        code = ", ".join(f"{key}={knobs[key]}" for key in sorted(taken))
        raise ConfigError(
            f"{run.name}: {code} is code in the run's folder, which a report does not run; if you "
            "trust it, add --run-code"
        )
    idle = {"components", *own, *(f"{key.partition('.')[0]}.options" for key in own)}
    return Experiment.from_flat({key: v for key, v in knobs.items() if key not in idle})


def data_set(run: Run) -> Dataset | None:
    """Return the data of a run; None where they are unknown here or not on this machine."""
    try:
        return load(experiment(run))
    except (ConfigError, OSError):
        return None


def data_read(headers: Iterable[Mapping]) -> list[str]:
    """Say what data runs read, as what and from where: a line a distinct reading.

    Args:
        headers: what each `experiment.json` holds; those of earlier versions don't say it.
    """
    told = (header.get("data") for header in headers)
    return list(dict.fromkeys(said(one) for one in told if isinstance(one, Mapping)))


def test_images(runs: Iterable[Run]) -> int | None:
    """Return how many images the runs were tested on; None if that is not known here."""
    sizes = {len(data.test) if (data := data_set(run)) else None for run in runs}
    return sizes.pop() if len(sizes) == 1 else None


def deals(runs: Iterable[Run]) -> tuple[list[Deal], list[str]]:
    """Deal the images again, once for every distinct deal of some runs.

    Returns:
        The deals, and for those that can't be repeated here a line that says why.
    """
    drawn: dict[str, Deal] = {}
    faults: dict[str, None] = {}
    for run in runs:
        wanted = str(run.header["deal_sha256"])
        if wanted not in drawn:
            try:
                drawn[wanted] = _deal(run)
            except ConfigError as error:
                faults[str(error)] = None
    return list(drawn.values()), list(faults)


def _deal(run: Run) -> Deal:
    """Repeat a run's deal.

    Raises:
        ConfigError: the data are not here, or code or data deal differently from the run's.
    """
    knobs = experiment(run)
    if data_set(run) is None:
        raise ConfigError(f"the data set {knobs.data.name} is not on this machine")
    parts = [part.numpy() for part in deal(knobs)]
    name = labels.settings(run.knobs)["partition"].text
    if fingerprint({f"{i:06}": part for i, part in enumerate(parts)}) != run.header["deal_sha256"]:
        raise ConfigError(
            f"{name}, seed {run.seed}: this version of fednf or of the data deals differently"
        )
    dealt_by, names = named_classes(knobs)
    counts = partitions.counts(dealt_by, parts, len(names))
    return Deal(name, run.seed, counts, names)
