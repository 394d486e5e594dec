"""Block B1: which learning rate suits each contender, judged by validation images alone."""

from experiments.studies.answer.conditions import (
    BETWEEN,
    EVEN,
    SKEWED,
    Axis,
    contenders,
    controls,
)
from experiments.studies.scale import Scale
from fl.simulation.study import Study, each, grid

_SEED = 9001
"""Tuning's own: `fednf tune` has no other. No other study has it."""


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


def tuning_cause(scale: Scale) -> Study:
    """The contenders of B3 that are not in `tuning`, at alpha 1."""
    rows = [row for name, row in controls().items() if name not in contenders(scale.base.rounds)]
    return _study(f"answer-tuning-cause{scale.suffix}", scale, rows, [SKEWED])


def _study(name: str, scale: Scale, rows: Axis, skews: Axis) -> Study:
    question = "Which learning rate suits each contender, judged by validation images?"
    return Study(name, question, grid(scale.base, rows, skews, each("seed", (_SEED,))))
