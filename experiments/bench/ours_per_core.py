"""Ours with `--workers`: a process a core trains clients."""

from experiments.bench import ours
from experiments.bench.record import Record
from fl.config import Experiment
from fl.provenance import cores


def run(knobs: Experiment, record: Record) -> None:
    """Play what a user gets."""
    ours.run(knobs, record, min(cores(), knobs.sampling.clients))
