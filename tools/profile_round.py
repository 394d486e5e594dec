"""The processor time of a round, part by part; docs/measurements/engines.md shows some.

``python tools/profile_round.py cnn 1 compiled`` runs rounds of a job of the bench in one process,
and measures each part. The time of a part does not include that of other parts within it.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import fl.client.task
import fl.server.nodes
import fl.server.replies
import fl.server.rounds
import fl.training.loop
import fl.training.step
import fl.vectorized.lanes
import fl.vectorized.scheduler
import fl.vectorized.tracing
import strategies.serving.server
from experiments.bench.jobs import JOBS, Size, job
from fl.server.journal import Journal
from fl.server.watching.callback import Callback, Line
from fl.simulation import run

PARTS = [
    ("passes: forward and backward", fl.vectorized.tracing.TracedGradients, "__call__"),
    ("batches next to each other", fl.vectorized.lanes, "_stack"),
    ("steps of the weights", fl.training.step.Update, "__call__"),
    ("training, the rest", fl.vectorized.scheduler, "train_in_lanes"),
    ("training, one by one", fl.client.task, "train_task"),
    ("clients begin", fl.client.task.Task, "begin"),
    ("clients end", fl.client.task.Task, "end"),
    ("clients, the rest", fl.client.task, "answer"),
    ("replies checked", fl.server.replies.Replies, "_fault"),
    ("replies folded", strategies.serving.server.Mean, "add"),
    ("evaluation", fl.server.nodes.Runtime, "when_busy"),
    ("journal and checkpoint", fl.server.rounds.Rounds, "_finish"),
    ("the round, the rest", fl.server.rounds.Rounds, "run_round"),
]
spent, within = defaultdict[str, float](float), [0.0]


def watched(name: str, part: Callable) -> Callable:
    """Return a function whose time, without that of parts within it, is added to a name's."""

    @wraps(part)
    def timed(*args, **kwargs):
        begun = time.process_time()
        within.append(0.0)
        try:
            found = part(*args, **kwargs)
            return list(found) if hasattr(found, "__next__") and name.startswith("train") else found
        finally:
            whole = time.process_time() - begun
            spent[name] += whole - within.pop()
            within[-1] += whole

    return timed


class Settled(Callback):
    """Forgets what the first two rounds took, which trace, load and fill caches."""

    def round_done(self, line: Line) -> None:
        """Forget."""
        if line["round"] == 2:
            spent.clear()


def main() -> None:
    """Print a table of milliseconds a round."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("job", choices=JOBS)
    words.add_argument("batch_size", type=int)
    words.add_argument("level", choices=["sequential", "native", "compiled"])
    words.add_argument("--rounds", type=int, default=20)
    asked = words.parse_args()
    engine = {"engine": "vectorized", "vectorized.level": asked.level, "vectorized.lanes": 5}
    with tempfile.TemporaryDirectory() as folder:
        knobs = job(asked.job, asked.batch_size, Size(rounds=asked.rounds), Path(folder))
        knobs = knobs.replace({"engine": "sequential"} if asked.level == "sequential" else engine)
        for name, owner, part in PARTS:
            setattr(owner, part, watched(name, getattr(owner, part)))
        run(knobs, Journal(Path(folder) / "run"), callbacks=[Settled()])
    total = sum(spent.values())
    for name, seconds in sorted(spent.items(), key=lambda part: -part[1]):
        _tell(name, seconds / (asked.rounds - 1), seconds / total)
    _tell("a round", total / (asked.rounds - 1), 1.0)


def _tell(name: str, seconds: float, share: float) -> None:
    sys.stdout.write(f"{name:30s} {1000 * seconds:7.1f} ms {share:6.1%}\n")


if __name__ == "__main__":
    main()
