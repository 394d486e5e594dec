"""A study of bad clients: which networks bear them, and by which rules of aggregation."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from fl.config import Experiment
from fl.config.parsing import Value
from fl.simulation.study import Study, each, grid

_RECIPES = ("batchnorm", "groupnorm", "zc-swish", "salunet")
_FLOWER = "flwr.serverapp.strategy"
_MAIN: tuple[dict[str, Value], ...] = (
    {"strategy.kind": "fedavg"},
    {"strategy.kind": f"{_FLOWER}:FedMedian"},
    {"strategy.kind": f"{_FLOWER}:Krum", "strategy.options.num_malicious_nodes": 3},
)
_MORE: tuple[dict[str, Value], ...] = (
    {"strategy.kind": f"{_FLOWER}:FedTrimmedAvg", "strategy.options.beta": 0.3},
    {"strategy.max-norm": 20.0},
)
"""Rules that know how many bad clients there may be are told 3 of 10, whatever there are."""
_ORDER = (
    ("none", 0.0, _MAIN),
    ("statistics", 0.3, _MAIN + _MORE),
    ("sign", 0.3, _MAIN),
    ("statistics", 0.1, _MAIN[:1]),
    ("labels", 0.3, _MAIN),
    ("statistics", 0.1, _MAIN[1:] + _MORE),
    ("huge", 0.3, _MAIN),
    ("nan", 0.3, _MAIN[:1]),
    *[(kind, share, _MORE) for kind, share in (("none", 0.0), ("sign", 0.3), ("labels", 0.3))],
    ("huge", 0.3, _MORE),
    *[(kind, 0.1, _MAIN + _MORE) for kind in ("sign", "labels", "huge")],
    ("nan", 0.1, _MAIN[:1]),
    *[(kind, 0.2, _MAIN + _MORE) for kind in ("statistics", "sign", "labels", "huge")],
    ("nan", 0.2, _MAIN[:1]),
)
"""What is done first says most, so that a study that is stopped has its figures complete there."""


def faults(scale: Scale) -> Study:
    """Liars and broken clients, by rule and by network; of BatchNorm, liars about statistics too.

    A NaN never reaches a rule, so the plain mean stands for all of them there.
    """
    recipes, norm = each("recipe", _RECIPES), each("recipe", _RECIPES[:1])
    seeds = each("seed", scale.seeds)
    experiments: tuple[Experiment, ...] = ()
    for kind, share, rules in _ORDER:
        bad: list[dict[str, Value]] = [{"faults.kind": kind, "faults.share": share}]
        who = norm if kind == "statistics" else recipes
        experiments += grid(scale.base, who, bad, rules, seeds)
    return Study(
        name=f"faults{scale.suffix}",
        question=(
            "Which networks bear bad clients, and are BatchNorm's statistics a second door for a "
            "liar?"
        ),
        experiments=experiments,
    )


_BASE = Experiment().replace(
    {
        "network.kind": "cnn",
        "partition.kind": "dirichlet",
        "partition.alpha": 1.0,
        "partition.clients": 10,
        "sampling.clients": 10,
        "client.lr": 0.1,
    }
)
_SMALL: dict[str, Value] = {
    "network.width": 8,
    "network.stem-stride": 2,
    "client.batch-size": 16,
    "rounds": 8,
    "engine": "vectorized",
    "vectorized.level": "native",
}
_FULL: dict[str, Value] = {"data.name": "cifar10", "client.batch-size": 16, "rounds": 50}
_SEEDS = (1, 2, 3, 5, 6)

FAULTS: dict[str, Callable[[], Study]] = by_scale(
    faults, Scale(_BASE.replace(_SMALL), _SEEDS), Scale(_BASE.replace(_FULL), _SEEDS, "-full")
)
"""Scale -> how the study is made. Small: 8 rounds of 10 clients, seconds a run on one core."""
