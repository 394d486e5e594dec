"""Block B3: is zero-centring the cause of ZC-Swish's lead, and what do its other parts do?"""

import itertools

from experiments.studies.answer.conditions import SKEWED, controls
from experiments.studies.scale import Scale
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

SEEDS = tuple(range(1101, 1109))
RATES = {
    "zc-swish": 0.04,
    "leaky-relu": 0.04,
    "swish": 0.08,
    "none": 0.04,
    "frozen": 0.08,
    "gated": 0.04,
    "shifted": 0.08,
}
"""Contender -> its rate at alpha 1. Block B1, and tuning of the same kind for this block."""
CLIPS = {"not clipped": "none", "clipped at 1": "norm:1", "clipped at 20": "norm:20"}
"""Beside ZC-Swish's own, which is norm:5."""


def compared() -> dict[str, dict[str, Value]]:
    """Return who is compared, by name: the controls, and ZC-Swish clipped otherwise."""
    own: dict[str, Value] = {"client.activation-lr": 1.0, "client.clip": "auto"}
    rows = {name: {**own, **row, "client.lr": RATES[name]} for name, row in controls().items()}
    clipped = {name: {**rows["zc-swish"], "client.clip": clip} for name, clip in CLIPS.items()}
    return rows | clipped


def cause(scale: Scale) -> Study:
    """ZC-Swish beside what is like it but for one thing, and clipped otherwise, at alpha 1.

    The three that H5 is about come first.
    """
    rows = list(compared().values())
    seeds = each("seed", SEEDS[: len(scale.seeds)])
    parts = (grid(scale.base, part, [SKEWED], seeds) for part in (rows[:3], rows[3:]))
    return Study(
        name=f"answer-cause{scale.suffix}",
        question="Is zero-centring the cause of ZC-Swish's lead over activations of its gain?",
        experiments=tuple(itertools.chain(*parts)),
        contrasts=Contrasts(
            reference=rows[0], family=({"recipe": "leaky-relu"}, {"recipe": "swish"})
        ),
    )
