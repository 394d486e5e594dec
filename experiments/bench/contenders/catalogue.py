"""The table of contenders. Each contender is a way to run the rounds of a job."""

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
    """What it is, in a few words."""
    module: str
    """Its module in `experiments.bench.contenders`, which is imported only to run, since other
    contenders' packages may be missing."""
    needs: Sequence[str] = ()
    """Packages that it needs."""
    knobs: Mapping[str, Value] = field(default_factory=dict)
    """Our knobs in which it differs from the job, such as the engine."""
    cold: bool = False
    """Whether it starts with an empty cache every time. It then runs only where it is named."""
    function: str = "run"
    """A function of (knobs, record) there, which runs all rounds of a job and records each one."""
    movable: bool = False
    """Whether it trains on the job's `device`. All others train on the CPU."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that it needs."""
        return {name: metadata.version(name) for name in self.needs}

    def missing(self) -> str | None:
        """Say why it can't run here; None where it can."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    def run(self, job: Experiment, record: Record) -> None:
        """Run the job's rounds in this process."""
        module = importlib.import_module(f"experiments.bench.contenders.{self.module}")
        getattr(module, self.function)(job.replace(self.knobs), record)


CONTENDERS: dict[str, Contender] = {
    "fednf": Contender("fednf, with what it chooses by itself", "ours", function="by_default"),
    "sequential": Contender(
        "fednf, one client after another, one process",
        "ours",
        knobs={"engine": "sequential"},
        movable=True,
    ),
    "traced": Contender(
        "fednf, clients in lanes, PyTorch's operators, one process",
        "ours",
        knobs={"engine": "vectorized", "vectorized.level": "traced"},
        movable=True,
    ),
    "vectorized": Contender(
        "fednf, clients in lanes, our convolutions, one process",
        "ours",
        knobs={"engine": "vectorized", "vectorized.level": "native"},
    ),
    "compiled": Contender(
        "fednf, the same, compiled",
        "ours",
        knobs={"engine": "vectorized", "vectorized.level": "compiled"},
    ),
    "sequential-per-core": Contender(
        "fednf, one client after another, a process a core",
        "ours",
        function="per_core",
        knobs={"engine": "sequential"},
    ),
    "vectorized-per-core": Contender(
        "fednf, clients in lanes, our convolutions, a process a core",
        "ours",
        function="per_core",
        knobs={"engine": "vectorized", "vectorized.level": "native"},
    ),
    "compiled-per-core": Contender(
        "fednf, the same, compiled",
        "ours",
        function="per_core",
        knobs={"engine": "vectorized", "vectorized.level": "compiled"},
    ),
    "vectorized-per-core-cold": Contender(
        "fednf, vectorized-per-core on a machine that never ran it",
        "ours",
        function="per_core",
        knobs={"engine": "vectorized", "vectorized.level": "native"},
        cold=True,
    ),
    "vectorized-on-ray": Contender(
        "fednf, clients in lanes, our convolutions, a Ray actor a core",
        "ours_on_ray",
        needs=("ray",),
        knobs={"engine": "vectorized", "vectorized.level": "native"},
    ),
    "loop": Contender("bare PyTorch, one process, one thread", "loop"),
    "loop-per-core": Contender("bare PyTorch, a process a core", "loop_per_core"),
    "pooled": Contender("bare PyTorch, all images in one place, batches of 128", "pooled"),
    "flower": Contender("stock Flower, Ray, a core a client", "flower", needs=("ray",)),
    "pfl": Contender("pfl-research, torchrun, a process a core", "pfl_research", needs=("pfl",)),
}
"""The contenders by name. To add one, add a row."""
