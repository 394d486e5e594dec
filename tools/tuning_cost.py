"""What tuning costs beside one run; docs/measurements/bench.md shows it.

``python tools/tuning_cost.py 4,8,16,40`` tunes 8 rates and 3 clips of one recipe with these rungs,
in this process, and before and after that runs one of its runs to the end. It prints images,
processor seconds and seconds of each.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from experiments.studies.tuning.plan import Plan
from experiments.studies.tuning.rungs import tune
from experiments.studies.tuning.space import axis, combined
from experiments.studies.tuning.table import cost
from experiments.studies.workers import work_with
from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run

KNOBS = {
    "data.validation": 0.1, "network.depth": 4, "network.width": 16, "rounds": 40,
    "partition.kind": "dirichlet-equal", "partition.alpha": 1.0, "sampling.clients": 5,
    "client.lr-schedule": "cosine",
}  # fmt: skip
GRID = combined([axis("client.lr=0.005:0.64:log8"), axis("client.clip=norm:1,norm:5,norm:20")])
KEEP = 3


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the processor seconds and the seconds that work takes in this process."""
    begun = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - begun[0], time.perf_counter() - begun[1]


def main() -> None:
    """Measure, and write a line each."""
    base = Experiment.from_flat(KNOBS)
    rungs = tuple(int(rung) for rung in sys.argv[1].split(","))
    play = partial(work_with, None, command="tools/tuning_cost.py", watch=lambda job, line: None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run(base.replace({"rounds": 1}), Journal(folder / "warm"))
        journals = [Journal(folder / f"one-{turn}") for turn in range(2)]
        ones = [timed(partial(run, base, journals[0]))]
        plan = Plan(base, ({"recipe": base.recipe},), GRID, rungs, factor=KEEP)
        plan.begin(folder / "tune", "")
        races = []
        whole = timed(lambda: races.extend(tune(plan, folder / "tune", play)))
        ones.append(timed(partial(run, base, journals[1])))
        rounds, images, times = cost(plan, races)
        one = [statistics.fmean(column) for column in zip(*ones, strict=True)]
        trained = journals[0].result()["images"]  # pyrefly: ignore
    said = [
        f"one run: {base.rounds} rounds, {trained:,} images, {one[0]:.1f} s of a processor",
        f"tuning: {rounds} rounds, {images:,} images, {whole[0]:.1f} s of a processor",
        f"ratios: {times:.2f} (images), {whole[0] / one[0]:.2f} (processor), "
        f"{whole[1] / one[1]:.2f} (seconds, of a machine that may be busy)",
    ]
    sys.stdout.write("\n".join(said) + "\n")


if __name__ == "__main__":
    main()
