"""What all blocks of the answer have in common: the job, the skews, and who takes part."""

from experiments.studies.scale import Scale
from fl.config import Experiment
from fl.config.parsing import Value

Axis = list[dict[str, Value]]

_JOB = Experiment().replace(
    {
        "data.validation": 0.1,
        "partition.kind": "dirichlet-equal",
        "client.batch-size": 4,
        "client.lr-schedule": "cosine",
        "evaluation.every": 3,
    }
)
"""Clients of equal size, so that skew does not change how much a round trains."""
FULL = Scale(
    _JOB.replace(
        {
            "data.name": "cifar10",
            "partition.clients": 100,
            "sampling.clients": 10,
            "rounds": 60,
        }
    ),
    seeds=tuple(range(1001, 1013)),
    suffix="-full",
)
"""270,000 images a run on CIFAR-10, plainnet of depth 8 and width 16. A seed is a block: one draw
of deal, initial weights, sampled clients and order. No other study uses these seeds."""
SMALL = Scale(
    _JOB.replace(
        {
            "partition.clients": 20,
            "sampling.clients": 5,
            "network.depth": 6,
            "network.width": 8,
            "rounds": 6,
        }
    ),
    seeds=(1001, 1002),
)
"""The shipped images and seconds a run: to see what the study is, not to answer."""

EVEN: dict[str, Value] = {"partition.kind": "iid"}
BETWEEN: dict[str, Value] = {"partition.alpha": 3.0}
"""Of `dirichlet-equal`, whose alpha is divided among ten classes."""
SKEWED: dict[str, Value] = {"partition.alpha": 1.0}
SKEWS = {"even": EVEN, "α 3": BETWEEN, "α 1": SKEWED}
"""By the names that tables have."""
GUESSING = 0.1
"""Accuracy of who guesses among ten classes."""

_CRITICAL: dict[str, Value] = {"network.init": "critical"}
"""For networks without normalizer: weights of variance 1 / (fan_in E[f²]) for their activation f,
so that no row learns faster for the size of its first weights alone."""


def contenders(rounds: int) -> dict[str, dict[str, Value]]:
    """Return the eleven contenders by name, for runs of so many rounds."""
    return {
        "bn-average": {"recipe": "batchnorm"},
        "bn-recalibrate": {"recipe": "batchnorm", "state.bn": "recalibrate"},
        "bn-fixbn": {"recipe": "batchnorm", "state.fixed-from": rounds // 2},
        "groupnorm": {"recipe": "groupnorm"},
        "groupnorm-2": {"recipe": "groupnorm-2"},
        "layernorm": {"recipe": "layernorm"},
        "ws-groupnorm": {"recipe": "ws-groupnorm"},
        "nf": {"recipe": "nf"},
        "none": {"recipe": "none", **_CRITICAL},
        "zc-swish": {"recipe": "zc-swish", **_CRITICAL},
        "salunet": {"recipe": "salunet", **_CRITICAL},
    }


def controls() -> dict[str, dict[str, Value]]:
    """Return ZC-Swish by name, and what is like it but for one thing.

    At critical weights signals keep their size in all of them, so none begins with another's gain.
    """
    zc_swish: dict[str, Value] = {"recipe": "zc-swish", **_CRITICAL}
    return {
        "zc-swish": zc_swish,
        "leaky-relu": {"recipe": "leaky-relu", **_CRITICAL},
        "swish": {"recipe": "swish", **_CRITICAL},
        "none": {"recipe": "none", **_CRITICAL},
        "frozen": {**zc_swish, "client.activation-lr": 0.0},
        "gated": {"recipe": "zc-swish-gated", **_CRITICAL},
        "shifted": {"recipe": "zc-swish-shifted", **_CRITICAL},
    }


def everyone(rounds: int) -> dict[str, dict[str, Value]]:
    """Return all that have rates, by name: contenders, controls, and who was asked for after B4.

    Instance normalization takes an image's own statistics, in training and in evaluation.
    """
    return {**controls(), **contenders(rounds), "instancenorm": {"recipe": "instancenorm"}}
