"""The studies that `fednf study NAME` knows; `fednf demo` is the first of them."""

from collections.abc import Callable

from experiments.study import Study, grid
from fl.config import Experiment


def demo() -> Study:
    """Six recipes on even and on skewed clients: the question of this project, in minutes."""
    base = Experiment().replace(
        {"rounds": 5, "sampling.clients": 5, "network.depth": 6, "network.width": 8}
    )
    recipes = ("batchnorm", "groupnorm", "none", "swish", "zc-swish", "salunet")
    return Study(
        name="demo",
        question=(
            "Do networks without batch normalization hold up when clients hold different classes "
            "and train on micro-batches?"
        ),
        experiments=grid(
            base,
            [{"recipe": recipe} for recipe in recipes],
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
            [{"seed": seed} for seed in (2, 3)],
        ),
    )


STUDIES: dict[str, Callable[[], Study]] = {"demo": demo}
