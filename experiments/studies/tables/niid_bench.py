"""NIID-Bench (arXiv 2102.02079): four methods on four deals of the same images."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import DATA, FASHION, SEEDS
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts, Knobs
from fl.config.parts.published import Cell, Published
from fl.simulation.study import Study, each, grid

Deals = tuple[dict[str, Value], ...]
_EVEN: dict[str, Value] = {"partition.kind": "iid"}
_DIRICHLET: dict[str, Value] = {"partition.kind": "dirichlet-balanced", "partition.alpha": 0.5}
_TWO: dict[str, Value] = {"partition.kind": "label-count", "partition.labels": 2}
_THREE: dict[str, Value] = {"partition.kind": "label-count", "partition.labels": 3}
_NOISE: dict[str, Value] = {"partition.kind": "feature-noise", "partition.noise": 0.1}
_SIZES: dict[str, Value] = {"partition.kind": "quantity", "partition.alpha": 0.5}
_METHODS: tuple[dict[str, Value], ...] = (
    {"strategy.kind": "fedavg"},
    {"strategy.kind": "fedprox", "strategy.mu": 0.01},
    {"strategy.kind": "scaffold"},
    {"strategy.kind": "fednova"},
)
"""μ is the default of Flower's baseline."""
_FLOWER = "Flower's baseline niid_bench, table of its README (after table 3 of arXiv 2102.02079)"
_FLOWER_SETUP = (
    "{}, a network of two convolutions (6 and 16 channels of 5 × 5), 10 clients of which all take "
    "part in each of 50 rounds, 10 epochs, batches of 64, learning rate 0.01, momentum 0.9; the "
    "best of all rounds on the test images, mean ± deviation of seeds whose number is not said; "
    "for FedProx the best of four μ"
)


def niid_bench(scale: Scale) -> Study:
    """Make FedAvg, FedProx, SCAFFOLD and FedNova meet the same deals."""
    full = bool(scale.suffix)
    deals = (_EVEN, _DIRICHLET, _TWO) + ((_THREE, _NOISE, _SIZES) if full else ())
    return Study(
        name=f"niid-bench{scale.suffix}",
        question="Which method serves clients best whose labels, inputs or sizes differ?",
        experiments=grid(scale.base, _METHODS, deals, each("seed", scale.seeds)),
        contrasts=Contrasts(
            reference={"strategy.kind": "fedavg"},
            family=({"strategy.kind": "scaffold", **_DIRICHLET},),
            endpoint="last-round",
        ),
        tables=(_authors(scale), _cifar10(scale)) if full else (_fashion(scale),),
    )


def _rows(*numbers: tuple[Cell, ...]) -> tuple[tuple[Knobs, tuple[Cell, ...]], ...]:
    return tuple(zip(_METHODS, numbers, strict=True))


def _fashion(scale: Scale) -> Published:
    return Published(
        source=_FLOWER,
        setup=_FLOWER_SETUP.format("Fashion-MNIST"),
        columns=(_EVEN, _DIRICHLET, _TWO),
        rows=_rows(
            ((89.23, 0.45), (88.09, 0.29), (78.10, 2.51)),
            ((89.42, 0.09), (88.15, 0.42), (78.05, 0.99)),
            ((89.33, 0.27), (88.44, 0.25), (33.80, 41.22)),
            ((89.36, 0.09), (88.22, 0.12), (71.67, 2.34)),
        ),
        differences=scale.differences,
    )


def _cifar10(scale: Scale) -> Published:
    return Published(
        source=_FLOWER,
        setup=_FLOWER_SETUP.format("CIFAR-10"),
        columns=(_EVEN, _DIRICHLET, _TWO, _THREE),
        rows=_rows(
            ((71.32, 0.33), (62.47, 0.43), (51.17, 1.09), (59.11, 0.87)),
            ((71.26, 1.18), (65.63, 0.08), (50.44, 0.79), (59.20, 1.18)),
            ((71.66, 1.13), (68.08, 0.96), (49.42, 2.18), (61.00, 0.91)),
            ((70.69, 1.14), (63.89, 1.40), (46.9, 0.66), (57.83, 0.42)),
        ),
        differences=scale.differences,
    )


def _authors(scale: Scale) -> Published:
    return Published(
        source="arXiv 2102.02079, README of its repository",
        setup=(
            "CIFAR-10, simple-cnn, 10 parties, all take part, 10 epochs, batches of 64, learning "
            "rate 0.01, 50 rounds"
        ),
        columns=(_DIRICHLET, _TWO, _NOISE, _SIZES),
        rows=_rows(
            (68.2, 49.8, 68.9, 72.0),
            (67.9, 50.7, 69.3, 71.2),
            (69.8, 49.1, 70.1, 62.4),
            (66.8, 46.5, 68.5, 10.0),
        ),
        differences=scale.differences,
    )


_JOB: dict[str, Value] = {
    "recipe": "none",
    "partition.clients": 10,
    "sampling.clients": 10,
    "client.lr": 0.01,
    "client.momentum": 0.9,
}
_SMALL = Scale(
    FASHION.replace({**_JOB, "client.epochs": 2, "rounds": 4}),
    SEEDS[:7],
    differences=(
        DATA,
        "4 rounds of 2 epochs in batches of 32",
        "convolutions of 3 × 3, the first with stride 2, of 6 and 12 channels, one linear layer",
        "gradients are clipped to norm 5",
        "accuracy after the last round; μ is 0.01 and not tuned",
    ),
)
_FULL = Scale(
    Experiment().replace(
        {
            **_JOB,
            "data.name": "cifar10",
            "network.kind": "cnn",
            "client.batch-size": 64,
            "client.epochs": 10,
            "client.clip": "none",
            "rounds": 50,
        }
    ),
    SEEDS[:7],
    "-full",
    differences=(
        "convolutions of 3 × 3 of 16 and 32 channels, and one linear layer in the place of three",
        "accuracy after the last round; μ is 0.01 and not tuned",
    ),
)
NIID_BENCH: dict[str, Callable[[], Study]] = by_scale(niid_bench, _SMALL, _FULL)
"""Scale -> how the study is made."""
