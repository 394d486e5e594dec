"""Time the partitions, side by side with flwr-datasets where that can be imported.

    python tools/bench_partitions.py

Any interpreter with NumPy and jaxtyping does. For the comparison, run it from the repository's
root in a throw-away environment, here one outside of the repository:

    python -m venv ~/golden && ~/golden/bin/pip install flwr-datasets==0.6.1 jaxtyping
    FLWR_TELEMETRY_ENABLED=0 HF_DATASETS_OFFLINE=1 PYTHONPATH=. ~/golden/bin/python \
        tools/bench_partitions.py

50,000 labels of ten even classes in random order, as CIFAR-10's, are dealt from labels in memory
to index arrays: a NumPy array for ours, a column of a `datasets.Dataset` for flwr-datasets, whose
public way to the first partition is timed; "dealing alone" hands it the labels as an array, since
most of its time is spent on reading that column. Fractions are drawn from the same seed, so that
both need equally many tries. What is printed is the fastest of several runs, in milliseconds of the
processor: neither uses more than one core, and what else runs on a machine matters less.
"""

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

import partitions

LABELS = np.random.default_rng(0).permutation(np.arange(50_000) % 10)
DOMAINS = np.arange(50_000) % 100
SEED = 1

# clients, alpha, min_size
SETTINGS = [
    (100, 0.3, 10),
    (100, 0.1, 10),
    (1000, 1.0, 10),
    (1000, 0.3, 0),
    (1000, 0.3, 10),
    (1000, 0.1, 1),
    (10_000, 1.0, 0),
    (10_000, 0.3, 1),
]

Deal = Callable[[int, float, int, np.random.Generator], object]
KINDS: dict[str, Deal] = {
    "iid": lambda n, a, m, rng: partitions.iid(LABELS, n, rng),
    "dirichlet": lambda n, a, m, rng: partitions.dirichlet(LABELS, n, a, m, rng),
    "dirichlet-equal": lambda n, a, m, rng: partitions.dirichlet_equal(LABELS, n, a, rng),
    "dirichlet-balanced": lambda n, a, m, rng: partitions.dirichlet_balanced(LABELS, n, a, m, rng),
    "mixture": lambda n, a, m, rng: partitions.mixture(LABELS, n, a, a, m, rng),
    "quantity": lambda n, a, m, rng: partitions.quantity(LABELS, n, a, m, rng),
    "shards": lambda n, a, m, rng: partitions.shards(LABELS, n, 2, rng),
    "label-count": lambda n, a, m, rng: partitions.label_count(LABELS, n, 2, rng),
    "natural": lambda n, a, m, rng: partitions.natural(LABELS, DOMAINS, n, a, m, rng),
}
ALPHAS = (1e-9, 0.3, 1e6)


def milliseconds(work: Callable[[], object], runs: int) -> float:
    """Return the least time that the work took in some runs, in milliseconds of the processor."""
    taken = []
    for _ in range(runs):
        begun = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - begun))
    return min(taken)


def ours(deal: Deal, clients: int, alpha: float, min_size: int) -> object:
    """Deal with one of our partitions."""
    return deal(clients, alpha, min_size, np.random.default_rng(SEED))


def at_hand(base: type) -> object:
    """Make a Dataset with its labels in an array, to time how flwr-datasets deals them alone."""
    methods = {
        "__init__": lambda self: None,
        "__del__": lambda self: None,
        "__getitem__": lambda self, key: LABELS,
        "num_rows": len(LABELS),
        "unique": lambda self, key: list(range(10)),
        "select": lambda self, indices: indices,
    }
    return type("AtHand", (base,), methods)()


def theirs(partitioner: Callable, column: object, clients: int, alpha: float, size: int) -> bool:
    """Deal with flwr-datasets and return whether it did not give up."""
    dealer = partitioner(
        clients, "label", alpha, size, self_balancing=False, shuffle=True, seed=SEED
    )
    dealer.dataset = column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each try that is not the last
        try:
            dealer.load_partition(0)
        except ValueError:
            return False
    return True


def compare() -> Iterator[str]:
    """Write the table of ours against theirs."""
    dataset = import_module("datasets").Dataset
    column, array = dataset.from_dict({"label": LABELS}), at_hand(dataset)
    partitioner = import_module("flwr_datasets.partitioner").DirichletPartitioner
    yield "| clients | alpha | min-size | flwr-datasets | dealing alone | ours | ratios |"
    yield "|---|---|---|---|---|---|---|"
    for setting in SETTINGS:
        fast = milliseconds(partial(ours, KINDS["dirichlet"], *setting), 15)
        slow, alone = (
            milliseconds(partial(theirs, partitioner, labels, *setting), 3)
            for labels in (column, array)
        )
        answered = theirs(partitioner, array, *setting)
        ratios = f"{slow / fast:.0f}×, {alone / fast:.0f}×" if answered else "raises"
        row = " | ".join(f"{value:,}" for value in setting)
        yield f"| {row} | {slow:.0f} ms | {alone:.0f} ms | {fast:.1f} ms | {ratios} |"


def survey() -> Iterator[str]:
    """Write how long each kind takes, at the slowest of several concentrations and sizes."""
    yield "| kind | 100 clients, ms | 1,000 clients, ms | 10,000 clients, ms |"
    yield "|---|---|---|---|"
    for kind, deal in KINDS.items():
        slowest = [
            max(milliseconds(partial(ours, deal, n, a, m), 3) for a in ALPHAS for m in (0, 5))
            for n in (100, 1000, 10_000)
        ]
        yield f"| `{kind}` | {' | '.join(f'{value:.0f}' for value in slowest)} |"


def main() -> None:
    """Print the conditions and both tables."""
    packages = ["numpy", *(["flwr-datasets", "datasets"] if find_spec("flwr_datasets") else [])]
    found = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [f"Python {platform.python_version()}, {found}; {os.cpu_count()} cores", ""]
    lines += [*compare(), ""] if len(packages) > 1 else []
    print("\n".join([*lines, *survey()]))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
