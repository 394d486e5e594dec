"""FedNova (arXiv 2007.07481): clients of unequal work, by three local solvers."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import DATA, FASHION, SEEDS
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.config.parts.published import Published
from fl.simulation.study import Study, each, grid

_MU = 0.005
"""Ours: the published one was not read."""
_PLAIN: dict[str, Value] = {"client.momentum": 0.0}
_MOMENTUM: dict[str, Value] = {"client.momentum": 0.9}
_EQUAL: dict[str, Value] = {"client.epochs": 2, "fleet.stragglers": 0.0}
_UNEQUAL: dict[str, Value] = {"client.epochs": 4, "fleet.stragglers": 1.0}
"""Each client's epochs in a round are drawn from 1, 2, 3, 4."""
_WORK = (_EQUAL, _UNEQUAL)
_FEDAVG: dict[str, Value] = {"strategy.kind": "fedavg"}
_FEDNOVA: dict[str, Value] = {"strategy.kind": "fednova", "strategy.mu": 0.0}
_PULLED: tuple[dict[str, Value], ...] = (
    {"strategy.kind": "fedprox", "strategy.mu": _MU},
    {"strategy.kind": "fednova", "strategy.mu": _MU},
)
"""FedProx's clients, averaged by FedAvg and by FedNova."""


def fednova(scale: Scale) -> Study:
    """Make FedAvg and FedNova meet equal and unequal work; together with μ there is no momentum."""
    seeds = each("seed", scale.seeds)
    pulled = _PULLED if scale.suffix else ()
    plain = grid(scale.base, (_FEDAVG, _FEDNOVA, *pulled), (_PLAIN,), _WORK, seeds)
    momentum = grid(scale.base, (_FEDAVG, _FEDNOVA), (_MOMENTUM,), _WORK, seeds)
    return Study(
        name=f"fednova{scale.suffix}",
        question="Does it help to count each client's steps when its work is averaged?",
        experiments=plain + momentum,
        contrasts=Contrasts(
            reference=_FEDAVG, family=({**_FEDNOVA, **_PLAIN},), endpoint="last-round"
        ),
        tables=(_published(scale),),
    )


def _published(scale: Scale) -> Published:
    columns = tuple({**solver, **work} for solver in (_PLAIN, _MOMENTUM) for work in _WORK)
    prox, nova = _PULLED
    pulled = (
        (prox, ((62.30, 0.38), (64.47, 0.28), None, None)),
        (nova, ((67.00, 0.47), (69.25, 1.30), None, None)),
    )
    return Published(
        source="Flower's baseline fednova, table of its README (table 1 of arXiv 2007.07481)",
        setup=(
            "CIFAR-10, VGG-11 without BatchNorm, 16 clients by Dirichlet α = 0.1, 100 rounds, 2 "
            "epochs or in each round a number from [2, 5), batches of 32, learning rate 0.05, "
            "weight decay 0.0001; mean ± confidence interval, as the source calls it, of at least "
            "3 seeds"
        ),
        columns=columns,
        rows=(
            (_FEDAVG, ((62.35, 1.33), (64.30, 1.75), (70.78, 1.03), (72.75, 1.28))),
            (_FEDNOVA, ((67.04, 0.94), (70.54, 0.43), (73.01, 0.32), (74.26, 0.39))),
            *(pulled if scale.suffix else ()),
        ),
        differences=scale.differences,
    )


_OTHERWISE = (
    "unequal work is 1 to 4 epochs in the place of 2 to 4",
    "gradients are clipped to norm 5",
)
_JOB: dict[str, Value] = {
    "recipe": "none",
    "partition.kind": "dirichlet",
    "partition.alpha": 0.1,
    "partition.clients": 16,
    "sampling.clients": 16,
    "client.lr": 0.05,
}
_SMALL = Scale(
    FASHION.replace({**_JOB, "rounds": 3}),
    SEEDS[:3],
    differences=(
        DATA,
        "two convolutions of 6 and 12 channels and a linear layer",
        "3 rounds, batches of 32, no weight decay",
        "accuracy after the last round",
        "no proximal term, with which published numbers are those without",
        *_OTHERWISE,
    ),
)
_FULL = Scale(
    Experiment().replace(
        {
            **_JOB,
            "data.name": "cifar10",
            "network.kind": "plainnet",
            "network.depth": 11,
            "network.width": 64,
            "client.batch-size": 32,
            "client.weight-decay": 1e-4,
            "rounds": 100,
        }
    ),
    SEEDS[:7],
    "-full",
    differences=(
        "plainnet of depth 11 and width 64: strides in the place of pools, one linear layer, no "
        "dropout",
        "μ is 0.005, since the published one was not read",
        *_OTHERWISE,
    ),
)
FEDNOVA: dict[str, Callable[[], Study]] = by_scale(fednova, _SMALL, _FULL)
"""Scale -> how the study is made."""
