"""The studies that `fednf study NAME` knows, by scale; `fednf demo` is the first of them."""

from collections.abc import Callable

from experiments.studies.answer import ANSWER
from experiments.studies.faults import FAULTS
from experiments.studies.papers import PAPERS
from experiments.studies.rates import DEMO_RATES, LEARNING_RATES
from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables import TABLES
from fl.config import Experiment
from fl.simulation.study import Study, each, grid

_TUNING_SEED = 4
"""No other study uses it."""


_CIFAR10 = Experiment().replace({"data.name": "cifar10", "partition.clients": 100})
SMALL = Scale(
    _CIFAR10.replace({"rounds": 8, "sampling.clients": 5, "network.depth": 6, "network.width": 8}),
    seeds=(1, 2, 3),
)
"""About 5,000 steps a run on CIFAR-10 and 5,000 weights: half a minute on one core."""
FULL = Scale(
    _CIFAR10.replace({"rounds": 100, "sampling.clients": 10}), seeds=(1, 2, 3, 5, 6), suffix="-full"
)
"""About 125,000 steps a run on CIFAR-10 and 31,000 weights."""


def demo() -> Study:
    """Six recipes on even and on skewed clients: the question of this project, in minutes."""
    base = Experiment().replace(
        {
            "rounds": 5,
            "sampling.clients": 5,
            "network.depth": 6,
            "network.width": 8,
            "network.init": "critical",  # so that none learns faster for its first weights alone
        }
    )
    return Study(
        name="demo",
        question=(
            "Do networks without batch normalization hold up when clients hold different classes "
            "and train on micro-batches?"
        ),
        experiments=grid(
            base,
            [{"recipe": recipe, "client.lr": rate} for recipe, rate in DEMO_RATES.items()],
            [
                {"partition.kind": "iid"},
                {"partition.kind": "dirichlet", "partition.alpha": 0.1},
                {
                    "partition.kind": "dirichlet",
                    "partition.alpha": 0.1,
                    "strategy.kind": "fedprox",
                    "strategy.mu": 0.1,
                },
            ],
            each("seed", (2, 3)),
        ),
    )


def heterogeneity(scale: Scale) -> Study:
    """Every recipe at its own learning rate, from even clients to clients of nearly one class."""
    skews = [{"partition.alpha": alpha} for alpha in (0.05, 0.1, 0.3, 1.0)]
    return Study(
        name=f"heterogeneity{scale.suffix}",
        question=(
            "How far do networks without batch normalization hold up as clients hold fewer and "
            "fewer classes, and does FedProx help?"
        ),
        experiments=grid(
            scale.base,
            _at_their_rates(),
            [{"partition.kind": "iid"}, *skews],
            [{"strategy.kind": "fedavg"}, {"strategy.kind": "fedprox", "strategy.mu": 0.1}],
            each("seed", scale.seeds),
        ),
    )


def memory_tiers(scale: Scale) -> Study:
    """Devices whose memory forces their batch size, beside equal devices, even and skewed."""
    return Study(
        name=f"memory-tiers{scale.suffix}",
        question=(
            "What does it cost that devices differ in memory, so that some train on one image a "
            "step and others on sixteen?"
        ),
        experiments=grid(
            scale.base,
            _at_their_rates(),
            [{"partition.kind": "iid"}, {"partition.alpha": 0.1}],
            [{"fleet.memory": "none"}, {"fleet.memory": "1:0.3,4:0.4,16:0.3"}],
            each("seed", scale.seeds),
        ),
    )


def learning_rates(scale: Scale) -> Study:
    """Four rates for every recipe, scored on validation images: where `LEARNING_RATES` are from."""
    return Study(
        name=f"learning-rates{scale.suffix}",
        question="Which learning rate suits which network, judged by validation images?",
        experiments=grid(
            scale.base.replace({"partition.alpha": 0.3, "data.validation": 0.1}),
            each("recipe", LEARNING_RATES),
            each("client.lr", (0.02, 0.05, 0.1, 0.2)),
            each("seed", (_TUNING_SEED,)),
        ),
    )


def _at_their_rates() -> list[dict]:
    return [{"recipe": recipe, "client.lr": rate} for recipe, rate in LEARNING_RATES.items()]


STUDIES: dict[str, dict[str, Callable[[], Study]]] = {
    "demo": {"small": demo},
    "heterogeneity": by_scale(heterogeneity, SMALL, FULL),
    "memory-tiers": by_scale(memory_tiers, SMALL, FULL),
    "learning-rates": by_scale(learning_rates, SMALL, FULL),
    "faults": FAULTS,
    **PAPERS,
    **TABLES,
    **ANSWER,
}
"""Study -> scale -> how it is made; the first scale is the one that runs if none is asked for."""
