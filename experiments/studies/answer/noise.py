"""Block B0: what results differ by before anything is compared, so how many blocks B2 needs."""

from experiments.studies.answer.conditions import EVEN, SKEWED, contenders
from experiments.studies.scale import Scale
from fl.simulation.study import Study, each, grid

_SEED = 900
"""Of all that has no seed of its own here. No other study uses it, nor those below."""
_RATES = {"none": 0.05, "bn-recalibrate": 0.1}
"""Of the study `learning-rates`; nothing is tuned yet, and nothing is compared."""


def noise(scale: Scale) -> Study:
    """Deals, initial weights and orders, each by its own seed, for two networks and two skews."""
    rounds = max(3, scale.base.rounds // 3)
    rows = contenders(rounds)
    return Study(
        name=f"answer-noise{scale.suffix}",
        question=(
            "How far apart are runs that differ only in the deal, the initial weights or the order "
            "of examples, and so, how many blocks does a comparison need?"
        ),
        experiments=grid(
            scale.base.replace({"rounds": rounds, "seed": _SEED}),
            [{**rows[name], "client.lr": rate} for name, rate in _RATES.items()],
            [EVEN, SKEWED],
            each("seed.deal", (901, 902, 903)),
            each("seed.init", (911, 912, 913)),
            each("seed.order", (921, 922)),
        ),
    )
