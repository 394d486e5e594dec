"""Block B3: is zero-centring the cause of ZC-Swish's lead, and what do its other parts do?"""

import itertools

from experiments.studies.answer.conditions import SKEWED, controls
from experiments.studies.scale import Scale
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

SEEDS = tuple(range(1101, 1109))
RATES = {
    "zc-swish": 0.04,
    "leaky-relu": 0.04,
    "swish": 0.08,
    "none": 0.08,
    "frozen": 0.16,
    "gated": 0.08,
    "shifted": 0.08,
}
"""Contender -> its rate at alpha 1. Block B1 and tuning of the same kind found the first three, by
halving; the others are those of `answer-tuning-late`."""
AT_ITS_RATE = "Swish at ZC-Swish's rate"
AT_LATER_RATES = {
    "leaky ReLU at its later rate": ("leaky-relu", 0.16),
    "Swish at its later rate": ("swish", 0.16),
}
"""What H5 is about, at the rates that are best at the end (`answer-tuning-late`)."""
_AGAIN = {AT_ITS_RATE: ("swish", RATES["zc-swish"]), **AT_LATER_RATES}
"""What was asked for after H5 was judged: a contender at another rate."""
CLIPS = {"not clipped": "none", "clipped at 1": "norm:1", "clipped at 20": "norm:20"}
"""Beside ZC-Swish's own, which is norm:5."""


def compared() -> dict[str, dict[str, Value]]:
    """Return who is compared: controls, ZC-Swish clipped otherwise, others at other rates."""
    own: dict[str, Value] = {"client.activation-lr": 1.0, "client.clip": "auto"}
    rows = {name: {**own, **row, "client.lr": RATES[name]} for name, row in controls().items()}
    clipped = {name: {**rows["zc-swish"], "client.clip": clip} for name, clip in CLIPS.items()}
    others = {name: {**rows[of], "client.lr": rate} for name, (of, rate) in _AGAIN.items()}
    return {**rows, **clipped, **others}


def cause(scale: Scale) -> Study:
    """ZC-Swish beside what is like it but for one thing, and clipped otherwise, at alpha 1.

    The three that H5 is about come first, then the forms of ZC-Swish and ReLU, then other clips.
    """
    rows = {name: row for name, row in compared().items() if name not in _AGAIN}
    clips = [rows.pop(name) for name in CLIPS]
    others = list(rows.values())
    parts = (others[:3], others[3:], clips)
    return Study(
        name=f"answer-cause{scale.suffix}",
        question="Is zero-centring the cause of ZC-Swish's lead over activations of its gain?",
        experiments=tuple(itertools.chain.from_iterable(_runs(scale, part) for part in parts)),
        contrasts=Contrasts(
            reference=others[0], family=({"recipe": "leaky-relu"}, {"recipe": "swish"})
        ),
    )


def cause_rate(scale: Scale) -> Study:
    """Swish at ZC-Swish's rate in the same blocks, asked for after H5 was judged.

    Tuning found its two best rates 0.1 points apart, on one seed.
    """
    return Study(
        name=f"answer-cause-rate{scale.suffix}",
        question="Does ZC-Swish's lead over Swish rest on the rate that Swish has?",
        experiments=_runs(scale, [compared()[AT_ITS_RATE]]),
    )


def cause_late(scale: Scale) -> Study:
    """Leaky ReLU and Swish at their later rates in the same blocks, asked for after H5 was judged.

    In `cause` they have the rates that halving left.
    """
    rows = compared()
    return Study(
        name=f"answer-cause-late{scale.suffix}",
        question="Does ZC-Swish's lead rest on rates that were tuned too early?",
        experiments=_runs(scale, [rows[name] for name in AT_LATER_RATES]),
    )


def _runs(scale: Scale, rows: list[dict[str, Value]]) -> tuple[Experiment, ...]:
    return grid(scale.base, rows, [SKEWED], each("seed", SEEDS[: len(scale.seeds)]))
