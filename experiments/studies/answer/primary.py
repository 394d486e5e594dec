"""Block B2: do ZC-Swish and SaluNet hold up under skew, beside normalizers at their own rates?"""

from experiments.studies.answer.conditions import SKEWS, contenders
from experiments.studies.scale import Scale
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

RATES = {
    "bn-average": (0.16, 0.16, 0.32),
    "bn-recalibrate": (0.16, 0.16, 0.32),
    "bn-fixbn": (0.16, 0.16, 0.32),
    "ws-groupnorm": (0.16, 0.16, 0.16),
    "nf": (0.08, 0.08, 0.08),
    "none": (0.08, 0.08, 0.08),
    "zc-swish": (0.04, 0.04, 0.04),
    "salunet": (0.16, 0.08, 0.08),
}
"""Contender -> its rate on even clients, at alpha 3 and at alpha 1. The first two blocks of tuning
left candidates, and `answer-tuning-late` tried them and higher ones to the end. FixBN is BatchNorm
until half of the rounds, so it has BatchNorm's."""

MEASURED = ("bn-average", "nf", "zc-swish", "salunet", "none")
"""Whose signals are measured, on even clients and at alpha 1, in the first block."""


def compared(rounds: int) -> dict[tuple[str, str], dict[str, Value]]:
    """Return who is compared at which skew, by both names, for runs of so many rounds."""
    rows = contenders(rounds)
    return {
        (name, skew): {**rows[name], **SKEWS[skew], "client.lr": rate}
        for name, rates in RATES.items()
        for skew, rate in zip(SKEWS, rates, strict=True)
    }


def primary(scale: Scale) -> Study:
    """Eight contenders at three skews, block by block: all runs of a seed come before the next."""
    return Study(
        name=f"answer-primary{scale.suffix}",
        question=(
            "Do ZC-Swish and SALU hold up under non-IID federated data, or only on homogeneous "
            "micro-batches?"
        ),
        experiments=grid(
            scale.base,
            list(compared(scale.base.rounds).values()),
            each("seed", scale.seeds),
        ),
        contrasts=Contrasts(
            reference={"recipe": "nf"}, family=({"recipe": "zc-swish"}, {"recipe": "salunet"})
        ),
    )


def signals(scale: Scale) -> Study:
    """Five contenders of the first block once more, measured after each sixth of the rounds.

    Measuring changes no result, so on one machine these are the block's runs.
    """
    rows = compared(scale.base.rounds)
    asked = [rows[name, skew] for skew in ("even", "α 1") for name in MEASURED]
    measured = {"signals.every": max(1, scale.base.rounds // 6), "signals.images": 256}
    return Study(
        name=f"answer-signals{scale.suffix}",
        question="What does averaging do to signals, and how far are clients apart under skew?",
        experiments=grid(scale.base, asked, each("seed", scale.seeds[:1]), [measured]),
    )
