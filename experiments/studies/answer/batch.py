"""Block B4: does BatchNorm gain more by batches of four than ZC-Swish and SaluNet do?"""

from experiments.studies.answer.conditions import SKEWED, contenders
from experiments.studies.answer.hypotheses import BASELINE, NEW
from experiments.studies.answer.primary import RATES as OF_PRIMARY
from experiments.studies.scale import Scale
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

SEEDS = tuple(range(1201, 1209))
AT_ONE = {"bn-average": 0.32, "zc-swish": 0.02, "salunet": 0.02}
"""Contender -> its rate at batches of one and alpha 1, by `answer-tuning-batch` and, of
BatchNorm, `answer-tuning-batch-late`."""
RATES = {1: AT_ONE, 4: {name: OF_PRIMARY[name][-1] for name in AT_ONE}}
"""Batch size -> contender -> its rate at alpha 1; at batches of four that of block B2."""


def compared(rounds: int) -> dict[tuple[int, str], dict[str, Value]]:
    """Return who is compared, by batch size and name, for runs of so many rounds."""
    rows = contenders(rounds)
    return {
        (size, name): {**rows[name], **SKEWED, "client.batch-size": size, "client.lr": rates[name]}
        for size, rates in RATES.items()
        for name in (BASELINE, *NEW)
    }


def batch(scale: Scale) -> Study:
    """BatchNorm, ZC-Swish and SaluNet at batches of one and of four, block by block."""
    return Study(
        name=f"answer-batch{scale.suffix}",
        question="Does BatchNorm gain more by batches of four than ZC-Swish and SaluNet do?",
        experiments=grid(
            scale.base,
            list(compared(scale.base.rounds).values()),
            each("seed", SEEDS[: len(scale.seeds)]),
        ),
        contrasts=Contrasts(
            reference={"recipe": "batchnorm"},
            family=({"recipe": "zc-swish"}, {"recipe": "salunet"}),
        ),
    )
