"""The table of contenders: each is a way of playing the rounds of a job."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.config.parsing import Value


@dataclass(frozen=True)
class Contender:
    """One way to do a job."""

    about: str
    """In a few words."""
    module: str
    """In `experiments.bench`, with a `run(knobs, record)` that plays all rounds of a job and
    records each when it is finished; not imported before that, as others may need others."""
    needs: Sequence[str] = ()
    """Packages that it can't do without."""
    knobs: Mapping[str, Value] = field(default_factory=dict)
    """Of ours, in which it differs from the job, such as the engine."""
    cold: bool = False
    """Whether it finds the user's cache empty every time; it is then run only where it is named."""
    movable: bool = False
    """Whether it trains where the job's `device` says; all others train on the CPU."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that it needs."""
        return {name: metadata.version(name) for name in self.needs}

    def missing(self) -> str | None:
        """Say why it can't run here; None where it can."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    def run(self, job: Experiment, record: Record) -> None:
        """Play the job's rounds in this process."""
        module = importlib.import_module(f"experiments.bench.contenders.{self.module}")
        module.run(job.replace(self.knobs), record)


CONTENDERS: dict[str, Contender] = {
    "sequential": Contender(
        "fednf, one client after another, one process",
        "ours",
        knobs={"engine": "sequential"},
        movable=True,
    ),
    "traced": Contender(
        "fednf, clients in lanes, PyTorch's operators, one process",
        "ours",
        knobs={"engine": "cohort", "cohort.level": "traced"},
        movable=True,
    ),
    "cohort": Contender(
        "fednf, clients in lanes, our convolutions, one process",
        "ours",
        knobs={"engine": "cohort", "cohort.level": "native"},
    ),
    "compiled": Contender(
        "fednf, the same, compiled",
        "ours",
        knobs={"engine": "cohort", "cohort.level": "compiled"},
    ),
    "sequential-per-core": Contender(
        "fednf, one client after another, a process a core",
        "ours_per_core",
        knobs={"engine": "sequential"},
    ),
    "cohort-per-core": Contender(
        "fednf, clients in lanes, our convolutions, a process a core",
        "ours_per_core",
        knobs={"engine": "cohort", "cohort.level": "native"},
    ),
    "compiled-per-core": Contender(
        "fednf, the same, compiled",
        "ours_per_core",
        knobs={"engine": "cohort", "cohort.level": "compiled"},
    ),
    "cohort-per-core-cold": Contender(
        "fednf, cohort-per-core on a machine that never ran it",
        "ours_per_core",
        knobs={"engine": "cohort", "cohort.level": "native"},
        cold=True,
    ),
    "cohort-on-ray": Contender(
        "fednf, clients in lanes, our convolutions, a Ray actor a core",
        "ours_on_ray",
        needs=("ray",),
        knobs={"engine": "cohort", "cohort.level": "native"},
    ),
    "loop": Contender("bare PyTorch, one process, one thread", "loop"),
    "loop-per-core": Contender("bare PyTorch, a process a core", "loop_per_core"),
    "pooled": Contender("bare PyTorch, all images in one place, batches of 128", "pooled"),
    "flower": Contender("stock Flower, Ray, a core a client", "flower", needs=("ray",)),
    "pfl": Contender("pfl-research, torchrun, a process a core", "pfl_research", needs=("pfl",)),
}
"""By name; a row more is a contender more."""
