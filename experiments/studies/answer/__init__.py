"""The study that answers: do ZC-Swish and SALU hold up under non-IID federated micro-batches?

It is done in blocks, of which each has a file here. `docs/studies/answer/plan.md` has hypotheses,
endpoints and rules of stopping, and was committed before the first confirmatory run.
"""

from collections.abc import Callable

from experiments.studies.answer.batch import batch, batch_even, batch_instance, batch_others
from experiments.studies.answer.cause import cause, cause_late, cause_rate
from experiments.studies.answer.conditions import FULL, SMALL
from experiments.studies.answer.noise import noise
from experiments.studies.answer.primary import primary, signals
from experiments.studies.answer.tuning import (
    tuning,
    tuning_batch,
    tuning_batch_even,
    tuning_batch_instance,
    tuning_batch_late,
    tuning_batch_others,
    tuning_between,
    tuning_cause,
    tuning_late,
)
from experiments.studies.scale import Scale, by_scale
from fl.simulation.study import Study

BLOCKS: tuple[Callable[[Scale], Study], ...] = (
    noise,
    tuning,
    tuning_between,
    tuning_late,
    tuning_cause,
    tuning_batch,
    tuning_batch_even,
    tuning_batch_instance,
    tuning_batch_late,
    tuning_batch_others,
    cause,
    cause_rate,
    cause_late,
    primary,
    signals,
    batch,
    batch_others,
    batch_even,
    batch_instance,
)
ANSWER: dict[str, dict[str, Callable[[], Study]]] = {
    f"answer-{block.__name__.replace('_', '-')}": by_scale(block, SMALL, FULL) for block in BLOCKS
}
"""Study -> scale -> how it is made."""
