"""Ours with `--runtime ray`: an actor a core trains clients."""

from contextlib import closing

from experiments.bench.contenders import ours
from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.reproducibility.provenance import cores
from fl.simulation.ray_pool import RayPool


def run(knobs: Experiment, record: Record) -> None:
    """Run what a user gets, on a Ray that is started for it."""
    with closing(RayPool(size=min(cores(), knobs.sampling.clients))) as pool:
        ours.run(knobs, record, pool=pool)
