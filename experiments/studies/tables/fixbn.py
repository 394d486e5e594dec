"""FixBN (arXiv 2303.06530): BatchNorm whose statistics are fixed in the second half of a run."""

from collections.abc import Callable

from experiments.studies.scale import Scale, by_scale
from experiments.studies.tables.small import FASHION, SEEDS
from fl.config import Experiment
from fl.config.parsing import Value
from fl.config.parts.contrasts import Contrasts
from fl.simulation.study import Study, each, grid


def fixbn(scale: Scale) -> Study:
    """Compare BatchNorm, FixBN and GroupNorm, by skew and by how often clients communicate."""
    half = scale.base.rounds // 2 + 1
    networks: list[dict[str, Value]] = [
        {"recipe": "batchnorm", "state.fixed-from": 0},
        {"recipe": "batchnorm", "state.fixed-from": half},
        {"recipe": "groupnorm"},
    ]
    return Study(
        name=f"fixbn{scale.suffix}",
        question="Does BatchNorm suit a federation once its statistics are fixed half way?",
        published=(
            "arXiv 2303.06530, abstract: BatchNorm outperforms GroupNorm in many settings; the "
            "exceptions are high-frequency communication and extreme non-IID; FixBN, whose clients "
            "normalize by the aggregated statistics from the middle of training on and keep the "
            "momentum of SGD over rounds, performs favourably across many. Its tables could not be "
            "read, so there are no numbers here."
        ),
        experiments=grid(
            scale.base,
            networks,
            each("partition.alpha", (0.1, 1.0)),
            each("client.steps", (3, 12)),
            each("seed", scale.seeds),
        ),
        contrasts=Contrasts(
            reference={"recipe": "batchnorm", "state.fixed-from": 0},
            family=({"recipe": "batchnorm", "state.fixed-from": half, "partition.alpha": 0.1},),
        ),
    )


_JOB: dict[str, Value] = {
    "partition.kind": "dirichlet",
    "partition.clients": 10,
    "sampling.clients": 10,
    "client.momentum": 0.9,
    "client.carry-momentum": True,
    "client.lr": 0.02,
}
_SMALL = Scale(FASHION.replace({**_JOB, "client.batch-size": 16, "rounds": 12}), SEEDS[:3])
_FULL = Scale(
    Experiment().replace(
        {
            **_JOB,
            "data.name": "cifar10",
            "network.kind": "resnet",
            "network.depth": 20,
            "network.stem-stride": 1,
            "client.batch-size": 32,
            "rounds": 128,
        }
    ),
    SEEDS[:7],
    "-full",
)
FIXBN: dict[str, Callable[[], Study]] = by_scale(fixbn, _SMALL, _FULL)
"""Scale -> how the study is made. The size at full scale is ours, as its source's could not be
read beyond the abstract and what others' code has of it."""
