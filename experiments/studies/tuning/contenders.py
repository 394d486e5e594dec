"""Whose knobs are tuned: the contenders of a study under each of its conditions, or those typed."""

from collections.abc import Collection, Sequence

from experiments.studies.tuning.plan import OWN_SEEDS
from experiments.studies.tuning.space import Knobs
from fl.config import Experiment
from fl.nn import relevant
from fl.simulation.study import Study


def of_study(study: Study, tuned: Collection[str]) -> tuple[Experiment, tuple[Knobs, ...]]:
    """Return what a study's experiments have in common, and all else that they differ in.

    A contender has the knobs in which experiments differ, but for seeds and those that are tuned.
    Of a knob that does not bear on it, such as `partition.alpha` of even clients, it says nothing.

    Args:
        study: is about them.
        tuned: keys that get other values.
    """
    plain = {"seed": Experiment().seed, **dict.fromkeys(OWN_SEEDS, "auto")}
    free = {*plain, *tuned}
    flats = [relevant(one.to_flat()) for one in study.experiments]
    keys = [key for key in dict.fromkeys(key for flat in flats for key in flat) if key not in free]
    varying = [key for key in keys if len({flat.get(key) for flat in flats}) > 1]
    rows = [{key: flat[key] for key in varying if key in flat} for flat in flats]
    distinct = {frozenset(row.items()): row for row in rows}
    return study.experiments[0].replace(plain), tuple(distinct.values())


def as_read(base: Experiment, rows: Sequence[Knobs]) -> tuple[Knobs, ...]:
    """Return knobs with the values that an experiment has of them: 1 is 1.0 of a rate."""
    return tuple({key: base.replace(row).to_flat()[key] for key in row} for row in rows)
