"""Ours with `--runtime ray`: an actor a core trains clients."""

from contextlib import closing

from experiments.bench.contenders import ours
from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.reproducibility.provenance import cores
from fl.simulation.ray_pool import Actors


def run(knobs: Experiment, record: Record) -> None:
    """Play what a user gets, on a Ray that is started for it."""
    with closing(Actors(size=min(cores(), knobs.sampling.clients))) as team:
        ours.run(knobs, record, team=team)
