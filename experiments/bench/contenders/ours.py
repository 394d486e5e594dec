"""Ours: what `fednf run` does, in this process or in one process per core."""

from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.reproducibility.provenance import cores
from fl.server.journal import Journal
from fl.server.watching.callback import Callback, Line
from fl.simulation import run as run_inline
from fl.simulation.worker_pool import WorkerPool


def run(
    knobs: Experiment, record: Record, workers: int | None = 1, pool: WorkerPool | None = None
) -> None:
    """Run what a user gets: rounds with messages, checks, an evaluation and a checkpoint."""

    class Recording(Callback):
        def round_done(self, line: Line) -> None:
            # A round's losses and weights are on the CPU by now: a GPU has nothing left to do.
            if line["round"]:
                record(line["images"], line["train_loss"], line["test_accuracy"])

    with TemporaryDirectory() as folder:
        journal, callbacks = Journal(Path(folder)), [Recording()]
        run_inline(knobs, journal, workers=workers, pool=pool, callbacks=callbacks)


def per_core(knobs: Experiment, record: Record) -> None:
    """Run with `--workers`: a process a core trains clients."""
    run(knobs, record, min(cores(), knobs.sampling.clients))


def by_default(knobs: Experiment, record: Record) -> None:
    """Run as who asks for nothing: engine, level, lanes and processes are chosen by `fednf run`."""
    run(knobs, record, workers=None)
