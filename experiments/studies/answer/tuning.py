"""Block B1: which learning rate suits each contender, judged by validation images alone."""

from experiments.studies.answer.conditions import EVEN, SKEWED, contenders
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
    return Study(
        name=f"answer-tuning{scale.suffix}",
        question="Which learning rate suits each contender, judged by validation images?",
        experiments=grid(
            scale.base,
            list(rows.values()),
            [EVEN, SKEWED],
            each("seed", (_SEED,)),
        ),
    )
