"""HBN (arXiv 2505.21877): normalizers in batches of four, each at the rate of the source."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import FASHION, SEEDS
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid


def hbn(scale: Scale) -> Study:
    """Compare HBN with its opponents, and with FBN, whose statistics are shared alone."""
    half = scale.base.rounds // 2 + 1
    networks: list[dict[str, Value]] = [
        {**_PLAIN, "client.lr": 0.01},
        {**_PLAIN, "state.fixed-from": half, "client.lr": 0.002},
        {**_MEASURED, "recipe": "hbn", "client.lr": 0.01, "state.local": "*.mixture"},
        {**_MEASURED, "recipe": "fbn", "client.lr": 0.01},
        {"recipe": "groupnorm-2", "client.lr": 0.005},
        {"recipe": "layernorm", "client.lr": 0.005},
        {"recipe": "none", "client.lr": 0.005},
    ]
    return Study(
        name=f"hbn{scale.suffix}",
        question="Which normalizer bears batches of four on skewed clients?",
        published=(
            "arXiv 2505.21877, abstract: HBN, which mixes statistics of the batch with global "
            "ones, does well across a wide range of settings, especially with small batches and "
            "heterogeneous data. Its tables could not be read, so there are no numbers here. Rates "
            "by normalizer are those of its code; those of FBN and of the network without one are "
            "ours."
        ),
        experiments=grid(scale.base, networks, each("seed", scale.seeds)),
        contrasts=Contrasts(reference=_PLAIN),
    )


_PLAIN: dict[str, Value] = {
    "recipe": "batchnorm",
    "state.bn": "average",
    "state.fixed-from": 0,
    "state.local": "none",
}
_MEASURED: dict[str, Value] = {**_PLAIN, "state.bn": "recalibrate"}
"""Clients measure statistics in a pass of their own."""
_JOB: dict[str, Value] = {
    "partition.kind": "dirichlet-equal",
    "partition.alpha": 0.6,
    "client.batch-size": 4,
    "client.momentum": 0.9,
    "client.lr-schedule": "exp:0.998",
    "client.clip": "norm:10",
}
_SMALL = Scale(
    FASHION.replace({**_JOB, "partition.clients": 20, "sampling.clients": 5, "rounds": 6}),
    SEEDS[:3],
)
_FULL = Scale(
    Experiment().replace(
        {
            **_JOB,
            "data.name": "cifar10",
            "network.kind": "cnn",
            "partition.clients": 100,
            "sampling.clients": 10,
            "rounds": 500,
        }
    ),
    SEEDS,
    "-full",
)
HBN: dict[str, Callable[[], Study]] = by_scale(hbn, _SMALL, _FULL)
"""Scale -> how the study is made."""
