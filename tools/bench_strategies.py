"""How fast lanes train under each method; docs/methods/corrections.md has figures.

``python tools/bench_strategies.py --batch 4 --level native fedavg scaffold state.local=norm`` plays
rounds of the default network on the shipped images in one process, method after method, turn after
turn. The order of methods turns around with each turn, and the first turn does not count.
Seconds are the process's own, so that others on the machine matter less, and without evaluation.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import fl.server.rounds
from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run

BASE = {
    "device": "cpu",
    "engine": "vectorized",
    "client.lr": 0.01,
}
fl.server.rounds.time = SimpleNamespace(perf_counter=time.process_time)  # pyrefly: ignore


def rate(knobs: Experiment, skip: int) -> float:
    """Return the images a second of all rounds but the first few, in training and averaging."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "run")
        run(knobs, journal)
        lines = journal.rounds()[1 + skip :]
    assert not any(line["refused"] for line in lines)
    return sum(line["images"] for line in lines) / sum(line["train_seconds"] for line in lines)


def main() -> None:
    """Print the rate of each method, and what it is beside the first's in the same turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "kinds",
        nargs="+",
        help="of strategy.kind, or knobs whose values are words; the first is compared with",
    )
    parser.add_argument("--recipe", default="zc-swish")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--clients", type=int, default=10, help="of a round, each in a lane")
    parser.add_argument("--of", type=int, default=100, help="clients in all")
    parser.add_argument("--skip", type=int, default=1, help="rounds before the three that count")
    parser.add_argument("--level", default="native")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    lanes = {"sampling.clients": asked.clients, "vectorized.lanes": asked.clients}
    more = {"vectorized.level": asked.level, "client.batch-size": asked.batch}
    more |= {"recipe": asked.recipe, "partition.clients": asked.of, "rounds": asked.skip + 3}
    found: dict[str, list[float]] = {kind: [] for kind in asked.kinds}
    for turn in range(asked.turns + 1):
        for kind in asked.kinds[:: 1 if turn % 2 else -1]:
            key, _, value = kind.rpartition("=")
            flat = {**BASE, **lanes, **more, key or "strategy.kind": value}
            measured = rate(Experiment.from_flat(flat), asked.skip)
            found[kind] += [measured] if turn else []
    first = found[asked.kinds[0]]
    for kind, rates in found.items():
        beside = sorted(a / b for a, b in zip(rates, first, strict=True))
        sys.stdout.write(
            f"{kind}: {statistics.median(rates):.0f} images/s, {statistics.median(beside):.2f} "
            f"({beside[0]:.2f}-{beside[-1]:.2f}) x {asked.kinds[0]}\n"
        )


if __name__ == "__main__":
    main()
