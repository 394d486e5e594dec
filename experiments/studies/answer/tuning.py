"""Block B1: which learning rate suits each contender, judged by validation images alone."""

import itertools
from collections.abc import Mapping, Sequence

from experiments.studies.answer.conditions import (
    BETWEEN,
    EVEN,
    FULL,
    SKEWED,
    SKEWS,
    Axis,
    contenders,
    controls,
    everyone,
)
from experiments.studies.answer.hypotheses import BASELINE, NEW
from experiments.studies.scale import Scale
from fl.simulation.study import Study, each, grid

_QUESTION = "Which learning rate suits each contender, judged by validation images?"
_SEED = 9001
"""Tuning's own: `fednf tune` has no other. No other study has it."""
LATE = {
    ("bn-average", "even"): (0.16, 0.32),
    ("bn-recalibrate", "even"): (0.16, 0.32),
    ("ws-groupnorm", "even"): (0.08, 0.16, 0.32),
    ("nf", "even"): (0.04, 0.08, 0.16),
    ("none", "even"): (0.04, 0.08, 0.16),
    ("zc-swish", "even"): (0.02, 0.04, 0.08),
    ("salunet", "even"): (0.08, 0.16, 0.32),
    ("bn-average", "α 3"): (0.08, 0.16, 0.32),
    ("bn-recalibrate", "α 3"): (0.16, 0.32),
    ("salunet", "α 3"): (0.08, 0.16),
    ("bn-average", "α 1"): (0.08, 0.16, 0.32, 0.64),
    ("bn-recalibrate", "α 1"): (0.08, 0.16, 0.32, 0.64),
    ("ws-groupnorm", "α 1"): (0.08, 0.16, 0.32),
    ("nf", "α 1"): (0.04, 0.08, 0.16),
    ("none", "α 1"): (0.02, 0.04, 0.08, 0.16),
    ("zc-swish", "α 1"): (0.02, 0.04, 0.08),
    ("salunet", "α 1"): (0.04, 0.08, 0.16),
    ("leaky-relu", "α 1"): (0.04, 0.08, 0.16, 0.32),
    ("swish", "α 1"): (0.04, 0.08, 0.16, 0.32),
    ("frozen", "α 1"): (0.08, 0.16, 0.32),
    ("gated", "α 1"): (0.04, 0.08, 0.16),
    ("shifted", "α 1"): (0.08, 0.16),
}
"""Contender of B2 or of B3, and skew -> rates that were tried to the end: the two that tuning left,
where they are within a point, else the best; then twice the highest, until that is not the best."""

OTHERS = ("bn-recalibrate", "nf")
"""Asked for after BatchNorm's tuning at batches of one: its remedy, and the best normalizer."""
AT_ONE_LATE = (0.16, 0.64)
"""Rates of BatchNorm at batches of one that halving dropped, beside the best it left, 0.32."""
AT_ONE_EVEN = {
    "nf": (0.02, 0.04, 0.08),
    "bn-average": (0.04, 0.08, 0.16, 0.32),
    "zc-swish": (0.01, 0.02, 0.04),
    "salunet": (0.01, 0.02, 0.04, 0.08),
}
"""Contender -> rates at batches of one that were tried to the end on even clients: its best one at
alpha 1, half of it and, but for BatchNorm, twice of it; then past the best, until that is at
neither edge."""


AT_ONE_INSTANCE = (0.04, 0.08, 0.16, 0.32, 0.64)
"""Rates of instance normalization at batches of one and alpha 1, tried to the end; the last since
the one before it was the best of four."""


def tuning(scale: Scale) -> Study:
    """Ten contenders on even and on skewed clients, for `fednf tune`.

    FixBN is BatchNorm until half of the rounds, so it has BatchNorm's rate.
    """
    rows = contenders(scale.base.rounds)
    del rows["bn-fixbn"]
    return _study(f"answer-tuning{scale.suffix}", scale, list(rows.values()), [EVEN, SKEWED])


def tuning_between(scale: Scale) -> Study:
    """The two contenders of B2 whose best rates on even clients and at alpha 1 are not the same."""
    rows = contenders(scale.base.rounds)
    both = [rows["bn-average"], rows["salunet"]]
    return _study(f"answer-tuning-between{scale.suffix}", scale, both, [BETWEEN])


def tuning_late(scale: Scale) -> Study:
    """Rates that tuning left, and higher ones, to the end of their schedule."""
    return _to_the_end(f"answer-tuning-late{scale.suffix}", scale, LATE)


def tuning_batch(scale: Scale) -> Study:
    """The contenders of H4 at batches of one, at alpha 1."""
    rows = contenders(scale.base.rounds)
    asked = [{**rows[name], "client.batch-size": 1} for name in (BASELINE, *NEW)]
    return _study(f"answer-tuning-batch{scale.suffix}", scale, asked, [SKEWED])


def tuning_batch_late(scale: Scale) -> Study:
    """BatchNorm at batches of one, at `AT_ONE_LATE`, to the end of its schedule."""
    rates = {(BASELINE, "α 1"): AT_ONE_LATE}
    return _to_the_end(f"answer-tuning-batch-late{scale.suffix}", scale, rates, batch_size=1)


def tuning_batch_others(scale: Scale) -> Study:
    """Who is compared with the contenders of H4 at batches of one, at alpha 1."""
    rows = contenders(scale.base.rounds)
    asked = [{**rows[name], "client.batch-size": 1} for name in OTHERS]
    return _study(f"answer-tuning-batch-others{scale.suffix}", scale, asked, [SKEWED])


def tuning_batch_even(scale: Scale) -> Study:
    """Contenders at batches of one on even clients, at `AT_ONE_EVEN`, to the end."""
    rates = {(name, "even"): of for name, of in AT_ONE_EVEN.items()}
    return _to_the_end(f"answer-tuning-batch-even{scale.suffix}", scale, rates, batch_size=1)


def tuning_batch_instance(scale: Scale) -> Study:
    """Instance normalization at batches of one, at `AT_ONE_INSTANCE`, to the end."""
    rates = {("instancenorm", "α 1"): AT_ONE_INSTANCE}
    return _to_the_end(f"answer-tuning-batch-instance{scale.suffix}", scale, rates, batch_size=1)


def tuning_cause(scale: Scale) -> Study:
    """The contenders of B3 that are not in `tuning`, at alpha 1."""
    rows = [row for name, row in controls().items() if name not in contenders(scale.base.rounds)]
    return _study(f"answer-tuning-cause{scale.suffix}", scale, rows, [SKEWED])


def _study(name: str, scale: Scale, rows: Axis, skews: Axis) -> Study:
    return Study(name, _QUESTION, grid(scale.base, rows, skews, each("seed", (_SEED,))))


def _to_the_end(
    name: str,
    scale: Scale,
    rates: Mapping[tuple[str, str], Sequence[float]],
    batch_size: int = FULL.base.client.batch_size,
) -> Study:
    """Return runs of whole schedules at the rates that each contender has at a skew."""
    rows = everyone(scale.base.rounds)
    shared = [{"seed": _SEED, "client.batch-size": batch_size}]
    runs = [
        grid(scale.base, [rows[who]], [SKEWS[skew]], each("client.lr", of), shared)
        for (who, skew), of in rates.items()
    ]
    return Study(name, _QUESTION, tuple(itertools.chain.from_iterable(runs)))
