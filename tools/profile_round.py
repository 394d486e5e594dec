"""Where a round's time goes: processor time of one process, part by part, as docs/engines.md shows.

``python tools/profile_round.py cnn 1 compiled`` plays rounds of a job of the bench in one process,
and takes the time of each part while it runs; what a part contains of other parts is not counted
to it.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import fl.client
import fl.cohort
import fl.lanes
import fl.replies
import fl.rounds
import fl.traced
import fl.training
import fl.updates
import strategies.mean
from experiments.bench.jobs import JOBS, Size, job
from fl.journal import Journal
from fl.runtime import run

PARTS = [
    ("passes: forward and backward", fl.traced.Traced, "__call__"),
    ("batches next to each other", fl.lanes, "_stacked"),
    ("steps of the weights", fl.updates.Update, "__call__"),
    ("training, the rest", fl.cohort, "together"),
    ("training, one by one", fl.cohort, "one_by_one"),
    ("clients begin", fl.client._Local, "begin"),
    ("clients end", fl.client._Local, "end"),
    ("clients, the rest", fl.client, "fit"),
    ("replies checked", fl.replies.Replies, "_fault"),
    ("replies folded", strategies.mean.Mean, "add"),
    ("evaluation", fl.rounds.Rounds, "_evaluate"),
    ("journal and checkpoint", fl.rounds.Rounds, "finish"),
    ("the round, the rest", fl.rounds.Rounds, "play"),
]
spent, within = defaultdict[str, float](float), [0.0]


def watched(name: str, part: Callable) -> Callable:
    """Return a function whose time, without that of parts within, is added to a name."""

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


def main() -> None:
    """Print a table of milliseconds a round."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("job", choices=JOBS)
    words.add_argument("batch_size", type=int)
    words.add_argument("level", choices=["sequential", "native", "compiled"])
    words.add_argument("--rounds", type=int, default=20)
    asked = words.parse_args()
    engine = {"engine": "cohort", "cohort.level": asked.level, "cohort.lanes": 5}
    with tempfile.TemporaryDirectory() as folder:
        knobs = job(asked.job, asked.batch_size, Size(rounds=asked.rounds), Path(folder))
        knobs = knobs.replace({"engine": "sequential"} if asked.level == "sequential" else engine)
        for name, owner, part in PARTS:
            setattr(owner, part, watched(name, getattr(owner, part)))
        # The first two rounds trace, load and fill caches.
        watch = lambda line: spent.clear() if line["round"] == 2 else None  # noqa: E731
        run(knobs, Journal(Path(folder) / "run"), watch=watch)
    total = sum(spent.values())
    for name, seconds in sorted(spent.items(), key=lambda part: -part[1]):
        _tell(name, seconds / (asked.rounds - 1), seconds / total)
    _tell("a round", total / (asked.rounds - 1), 1.0)


def _tell(name: str, seconds: float, share: float) -> None:
    sys.stdout.write(f"{name:30s} {1000 * seconds:7.1f} ms {share:6.1%}\n")


if __name__ == "__main__":
    main()
