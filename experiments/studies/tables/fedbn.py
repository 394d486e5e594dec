"""FedBN (arXiv 2102.07623) on real domains: what stays with a client, normalizers or scalars."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import FASHION, SEEDS
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid

_SHARED: dict[str, Value] = {"state.local": "none"}
_NORM: dict[str, Value] = {"state.local": "norm"}
_ACTIVATIONS: dict[str, Value] = {"state.local": "activations"}
_NETWORKS: list[dict[str, Value]] = [
    *(
        {"recipe": recipe, **kept}
        for recipe in ("batchnorm", "groupnorm")
        for kept in (_SHARED, _NORM)
    ),
    *(
        {"recipe": recipe, **kept}
        for recipe in ("zc-swish", "salunet")
        for kept in (_SHARED, _ACTIVATIONS)
    ),
]
_DOMAINS: list[dict[str, Value]] = [
    {"data.name": "emoji", "partition.clients": 2, "sampling.clients": 2},
    {"data.name": "watch", "partition.clients": 10, "sampling.clients": 10},
]
"""Two vendors' drawings of the same symbols, and the movements of ten wearers of a watch."""


def fedbn(scale: Scale) -> Study:
    """Give each real domain a client, and let normalizers or activations' scalars stay with it."""
    return Study(
        name=f"fedbn{scale.suffix}",
        question=(
            "Where each client is a domain of its own, does it serve clients to keep normalizers, "
            "or the scalars of activations, to themselves?"
        ),
        published=(
            "arXiv 2102.07623, abstract: FedBN, whose BatchNorm layers never leave their clients, "
            "outperforms FedAvg and FedProx where features differ (five sets of digits, 743 images "
            "a client). Its tables could not be read, so there are no numbers here. That scalars "
            "of activations stay is ours."
        ),
        experiments=grid(scale.base, _NETWORKS, _DOMAINS, each("seed", scale.seeds)),
        contrasts=Contrasts(
            reference=_SHARED,
            family=(
                {"recipe": "batchnorm", **_NORM},
                {"recipe": "zc-swish", **_ACTIVATIONS},
                {"recipe": "salunet", **_ACTIVATIONS},
            ),
            endpoint="clients",
        ),
    )


_JOB: dict[str, Value] = {
    "partition.kind": "natural",
    "partition.held-out": 0.2,
    "evaluation.clients": True,
    "client.lr": 0.05,
}
_SMALL = Scale(FASHION.replace({**_JOB, "rounds": 8}), SEEDS)
_FULL = Scale(
    FASHION.replace(
        {
            **_JOB,
            "network.kind": "plainnet",
            "network.depth": 6,
            "network.width": 32,
            "client.batch-size": 32,
            "client.lr": 0.01,
            "rounds": 100,
        }
    ),
    SEEDS,
    "-full",
)
FEDBN: dict[str, Callable[[], Study]] = by_scale(fedbn, _SMALL, _FULL)
"""Scale -> how the study is made. Both scales have the same domains, since four of the paper's five
sets can't be had by name here."""
