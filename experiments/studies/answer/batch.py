"""Block B4: does BatchNorm gain more by batches of four than ZC-Swish and SaluNet do?"""

from collections.abc import Iterable, Mapping

from experiments.studies.answer.conditions import EVEN, SKEWED, everyone
from experiments.studies.answer.primary import RATES as OF_PRIMARY
from experiments.studies.scale import Scale
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

SEEDS = tuple(range(1201, 1209))
AT_ONE = {"bn-average": 0.32, "zc-swish": 0.02, "salunet": 0.02}
"""Contender -> its rate at batches of one and alpha 1, by `answer-tuning-batch` and, of
BatchNorm, `answer-tuning-batch-late`."""
RATES = {1: AT_ONE, 4: {name: OF_PRIMARY[name][-1] for name in AT_ONE}}
"""Batch size -> contender -> its rate at alpha 1; at batches of four that of block B2."""


OTHERS_AT_ONE = {"bn-recalibrate": 0.32, "nf": 0.04}
"""The same of those that were asked for after BatchNorm's tuning, by `answer-tuning-batch-others`.
They have no runs at batches of four in these blocks."""
INSTANCE_AT_ONE = {"instancenorm": 0.32}
"""The same of who was asked for last, by `answer-tuning-batch-instance`."""
EVEN_AT_ONE = {"nf": 0.04, "bn-average": 0.16, "zc-swish": 0.02, "salunet": 0.04}
"""Contender -> its rate at batches of one on even clients, by `answer-tuning-batch-even`."""


def compared(rounds: int) -> dict[tuple[int, str], dict[str, Value]]:
    """Return who is compared, by batch size and name, for runs of so many rounds."""
    return {
        (size, name): row
        for size, rates in RATES.items()
        for name, row in _rows(rounds, rates, {**SKEWED, "client.batch-size": size}).items()
    }


def others(rounds: int) -> dict[str, dict[str, Value]]:
    """Return who is compared with them at batches of one, by name."""
    return _rows(rounds, OTHERS_AT_ONE, {**SKEWED, "client.batch-size": 1})


def instance(rounds: int) -> dict[str, dict[str, Value]]:
    """Return who has an image's own statistics, at batches of one, by name."""
    return _rows(rounds, INSTANCE_AT_ONE, {**SKEWED, "client.batch-size": 1})


def even(rounds: int) -> dict[str, dict[str, Value]]:
    """Return who is compared at batches of one on even clients, by name."""
    return _rows(rounds, EVEN_AT_ONE, {**EVEN, "client.batch-size": 1})


def _rows(
    rounds: int, rates: Mapping[str, float], shared: Mapping[str, Value]
) -> dict[str, dict[str, Value]]:
    rows = everyone(rounds)
    return {name: {**rows[name], **shared, "client.lr": rate} for name, rate in rates.items()}


def _runs(scale: Scale, rows: Iterable[dict[str, Value]]) -> tuple[Experiment, ...]:
    return grid(scale.base, list(rows), each("seed", SEEDS[: len(scale.seeds)]))


def batch_others(scale: Scale) -> Study:
    """Recalibrated BatchNorm and NF at batches of one, in the same blocks.

    Both were asked for after BatchNorm's tuning had shown that it is near guessing there.
    """
    rows = others(scale.base.rounds).values()
    question = "Who else learns at batches of one?"
    return Study(f"answer-batch-others{scale.suffix}", question, _runs(scale, rows))


def batch_even(scale: Scale) -> Study:
    """The contenders and NF at batches of one on even clients, in the same blocks."""
    rows = even(scale.base.rounds).values()
    question = "What does skew cost at batches of one?"
    return Study(f"answer-batch-even{scale.suffix}", question, _runs(scale, rows))


def batch_instance(scale: Scale) -> Study:
    """Instance normalization at batches of one, in the same blocks.

    It was asked for after BatchNorm had been scored by each image's own statistics.
    """
    rows = instance(scale.base.rounds).values()
    question = "Is BatchNorm's trouble at batches of one that it is evaluated otherwise?"
    return Study(f"answer-batch-instance{scale.suffix}", question, _runs(scale, rows))


def batch(scale: Scale) -> Study:
    """BatchNorm, ZC-Swish and SaluNet at batches of one and of four, block by block."""
    return Study(
        name=f"answer-batch{scale.suffix}",
        question="Does BatchNorm gain more by batches of four than ZC-Swish and SaluNet do?",
        experiments=_runs(scale, compared(scale.base.rounds).values()),
        contrasts=Contrasts(
            reference={"recipe": "batchnorm"},
            family=({"recipe": "zc-swish"}, {"recipe": "salunet"}),
        ),
    )
