"""Ours with `--workers`: a process a core trains clients."""

from experiments.bench.contenders import ours
from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.reproducibility.provenance import cores


def run(knobs: Experiment, record: Record) -> None:
    """Run what a user gets."""
    ours.run(knobs, record, min(cores(), knobs.sampling.clients))
