"""ANFR (arXiv 2410.02006): networks with and without normalizers under three methods."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import DATA, FASHION, SEEDS
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.config.parts.published import Published
from fl.simulation.study import Study, each, grid

_FEDAVG: dict[str, Value] = {"strategy.kind": "fedavg"}
_FEDPROX: dict[str, Value] = {"strategy.kind": "fedprox", "strategy.mu": 0.01}
_FEDADAM: dict[str, Value] = {"strategy.kind": "fedadam"}
_SETUP = "CIFAR-10, 5 clients, the split “split-2”, ResNet-50 {}; 3 seeds"


def anfr(scale: Scale) -> Study:
    """Make five networks meet three methods on clients of few labels."""
    methods = (_FEDAVG, _FEDPROX, _FEDADAM)
    return Study(
        name=f"anfr{scale.suffix}",
        question="Do networks without normalizers last where BatchNorm breaks in the last rounds?",
        experiments=grid(scale.base, _networks(scale), methods, each("seed", scale.seeds)),
        contrasts=Contrasts(
            reference=_networks(scale)[0],
            family=({"recipe": "nf", **_FEDAVG},),
            endpoint="last-round",
        ),
        tables=(_from_scratch(scale), _pretrained(scale)),
    )


def _networks(scale: Scale) -> list[dict[str, Value]]:
    """Return BatchNorm, SE (with channel attention), GroupNorm, NF, and ANFR, NF with attention."""
    alone: dict[str, Value] = {"network.squeeze": 0}
    attending: dict[str, Value] = {"network.squeeze": 16 if scale.suffix else 2}
    return [
        {"recipe": "batchnorm", **alone},
        {"recipe": "batchnorm", **attending},
        {"recipe": "groupnorm", **alone},
        {"recipe": "nf", **alone},
        {"recipe": "nf", **attending},
    ]


def _from_scratch(scale: Scale) -> Published:
    numbers = (80.89, 81.19, 78.52, 81.66, 83.20)
    return Published(
        source="ANFR (arXiv 2410.02006), from scratch",
        setup=_SETUP.format("from scratch"),
        columns=(_FEDAVG,),
        rows=tuple((one, (mean,)) for one, mean in zip(_networks(scale), numbers, strict=True)),
        differences=scale.differences,
    )


def _pretrained(scale: Scale) -> Published:
    numbers = (
        (67.39, 86.3, 57.43),
        (74.75, 94.23, 88.93),
        (96.73, 95.98, 95.32),
        (96.62, None, None),
        (97.45, 96.63, 96.96),
    )
    return Published(
        source="ANFR (arXiv 2410.02006), pre-trained, last round",
        setup=_SETUP.format("pre-trained on ImageNet, last round, no early stopping")
        + ". NF-ResNet became NaN with FedProx and FedAdam, which has no cell here",
        columns=(_FEDAVG, _FEDPROX, _FEDADAM),
        rows=tuple(zip(_networks(scale), numbers, strict=True)),
        differences=("networks begin with random weights", *scale.differences),
    )


_UNREAD = (
    "4 of 10 labels a client, since how “split-2” is dealt could not be read",
    "GroupNorm has at most four groups; gradients are clipped to norm 5",
    "μ is 0.01, FedAdam has its default options, one learning rate for all networks",
)
_JOB: dict[str, Value] = {
    "network.kind": "resnet-v2",
    "partition.kind": "label-count",
    "partition.labels": 4,
    "partition.clients": 5,
    "sampling.clients": 5,
}
_SMALL = Scale(
    FASHION.replace(
        {**_JOB, "network.depth": 8, "client.lr": 0.05, "client.batch-size": 16, "rounds": 3}
    ),
    SEEDS[:3],
    differences=(
        DATA,
        "a pre-activation ResNet of depth 8 and width 6; attention has half of the channels inside",
        "3 rounds of an epoch in batches of 16",
        *_UNREAD,
    ),
)
_FULL = Scale(
    Experiment().replace(
        {
            **_JOB,
            "data.name": "cifar10",
            "data.augment": "crop-flip",
            "network.depth": 50,
            "network.stem-stride": 1,
            "client.batch-size": 32,
            "client.lr": 0.05,
            "rounds": 100,
        }
    ),
    SEEDS[:7],
    "-full",
    differences=(
        "pre-activation ResNet-50, attention with a 16th of the channels inside",
        "100 rounds of an epoch in batches of 32 at learning rate 0.05, which are ours",
        *_UNREAD,
    ),
)
ANFR: dict[str, Callable[[], Study]] = by_scale(anfr, _SMALL, _FULL)
"""Scale -> how the study is made."""
