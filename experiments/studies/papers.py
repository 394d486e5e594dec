"""A study for each work that this project grew from: its claim, asked again on one client.

One client that holds all images makes a round an epoch, without a federation's averaging: what
a paper claims of ordinary training is asked of ordinary training. `--set partition.clients=100
--set sampling.clients=5` asks it of a federation.
"""

from collections.abc import Callable
from functools import partial

from experiments.studies.rates import LEARNING_RATES
from experiments.studies.scale import Scale
from fl.config import Experiment
from fl.config.parsing import Value
from fl.simulation.study import Study, each, grid

_ALONE = Experiment().replace(
    {"partition.kind": "iid", "partition.clients": 1, "sampling.clients": 1, "signals.every": 1}
)
"""5,000 images of Fashion-MNIST in batches of 4: 1,250 steps a round."""


def depth(scale: Scale) -> Study:
    """Plain networks of growing depth, by activation and by initial weights (ZC-Swish)."""
    return Study(
        name=f"depth{scale.suffix}",
        question=(
            "Up to which depth does a plain network without normalizers train, and is it the "
            "activation or the initial weights that decides?"
        ),
        published=(
            "arXiv 2604.19453, of which we could read the abstract and a machine-written digest "
            "(CIFAR-100, “default initialisation”, 30 epochs, one seed): at depth 16, ZC-Swish "
            "51.5 %, Swish 30.7 % (the abstract calls it near random), ReLU and GELU about 1 %; at "
            "depth 32 ZC-Swish collapses, too, where another digest has it usable."
        ),
        experiments=grid(
            scale.base,
            each("recipe", ("none", "gelu", "swish", "zc-swish")),
            each("network.depth", (8, 16, 32)),
            each("network.init", ("torch", "he")),
            each("seed", scale.seeds),
        ),
    )


def batch_size(scale: Scale) -> Study:
    """Batches from one image to 64, each with steps enough (SaluNet).

    Every recipe has its learning rate of the study `learning-rates`, for batches of 4, times the
    root of the batch size over 4 (derived, ours).
    """
    sizes = [(1, 1), (4, 2), (16, 7), (64, 26)]  # an epoch at least, and 2,000 steps
    return Study(
        name=f"batch-size{scale.suffix}",
        question="Which networks still train in batches of one image?",
        published=(
            "arXiv 2606.02927, abstract: SaluNet-C-18 reaches 97.35 % on CIFAR-10 and 83.25 % on "
            "CIFAR-100, and at batch size 1 still 93.44 % and 76.23 %, where “normalized "
            "architectures fail”. The figures of the normalized networks could not be read."
        ),
        experiments=grid(
            scale.base,
            [
                {
                    "recipe": recipe,
                    "client.batch-size": size,
                    "client.lr": rate * (size / 4) ** 0.5,
                    "rounds": rounds,
                }
                for size, rounds in sizes
                for recipe, rate in LEARNING_RATES.items()
            ],
            each("seed", scale.seeds),
        ),
    )


def bn_backward(scale: Scale) -> Study:
    """Ten layers with BatchNorm, with its scale and shift or without (the poster)."""
    return Study(
        name=f"bn-backward{scale.suffix}",
        question="What does batch normalization do to gradients on their way back?",
        published=(
            "Dewyse, Designing Normalizer-Free EfficientNets (JKU Linz, 2025), poster, figures 1 "
            "and 2: in a network of ten fully connected layers, BatchNorm with learnable scale and "
            "shift flattens the mean square of gradients over depth; without them it does not."
        ),
        experiments=grid(
            scale.base,
            each("recipe", ("none", "batchnorm", "batchnorm-no-affine")),
            [
                {"client.batch-size": 4, "rounds": 2},
                {"client.batch-size": 32, "rounds": 13},
            ],
            each("seed", scale.seeds),
        ),
    )


def sn_efficientnet(scale: Scale) -> Study:
    """EfficientNets with BatchNorm, without, and self-normalizing, by learning rate (poster)."""
    recipes = ("batchnorm", "swish", "selfnorm", "selfnorm-mp")
    regularized = {
        "network.dropout": 0.2,
        "network.stochastic-depth": 0.2,
        "client.weight-decay": 1e-4,
    }
    rates = grid(scale.base, each("recipe", recipes), each("client.lr", (0.1, 0.01, 0.001)))
    kept = grid(scale.base, each("recipe", recipes), [{"client.lr": 0.001, **regularized}])
    return Study(
        name=f"sn-efficientnet{scale.suffix}",
        question="Can an EfficientNet normalize itself, and at which learning rates?",
        published=(
            "Dewyse, Designing Normalizer-Free EfficientNets (JKU Linz, 2025), poster, table 1 "
            "(CIFAR-100, EfficientNet-B0, Adam, batches of 512, 20 epochs, 5 seeds; test accuracy "
            "in per cent): at learning rate 0.001, BatchNorm 33.5 ± 0.8, no normalizer 1.0 ± 0.0, "
            "self-normalizing 30.0 ± 0.2, with magnitude-preserving merges 29.2 ± 0.5; at 0.01, "
            "13.9 ± 3.4 and 1.0 for all others; at 0.1, 1.2 ± 0.4 and 1.0."
        ),
        experiments=tuple(
            experiment.replace({"seed": seed})
            for seed in scale.seeds
            for experiment in rates + kept
        ),
    )


def nf_resnet(scale: Scale) -> Study:
    """Pre-activation ResNets with and without scaled weight standardization (Brock et al.)."""
    return Study(
        name=f"nf-resnet{scale.suffix}",
        question=(
            "Does scaled weight standardization keep signals of a residual network even, where a "
            "network without a normalizer lets them grow?"
        ),
        published=(
            "arXiv 2101.08692: with scaled weight standardization the variance of a residual "
            "network is what its branches' weights prescribe (it grows by α² a block and starts "
            "anew at every transition), and channels keep mean 0. ANFR, table 6, with timm's "
            "recipes on ImageNet: NF-ResNet-50 80.22 % (at 256²), ResNet-50 with BatchNorm 78.81 %."
        ),
        experiments=grid(
            scale.base,
            each("recipe", ("batchnorm", "none", "nf", "nf-zc-swish")),
            each("seed", scale.seeds),
        ),
    )


_ADAM: dict[str, Value] = {"client.optimizer": "adam", "client.lr": 0.001}
_CIFAR100: dict[str, Value] = {"data.name": "cifar100", "data.augment": "crop-flip"}
_EFFICIENTNET: dict[str, Value] = {
    **_ADAM,
    "network.kind": "efficientnet",
    "client.clip": "none",
    "data.augment": "crop-flip",
}
_RESNET_8: dict[str, Value] = {"network.kind": "resnet", "network.depth": 8, "network.width": 8}
_RESNET_18: dict[str, Value] = {
    "data.name": "cifar10",
    "data.augment": "crop-flip",
    "network.kind": "resnet",
    "network.depth": 18,
    "network.stem-stride": 1,
}
_NARROW_EFFICIENTNET: dict[str, Value] = {
    **_EFFICIENTNET,
    "network.depth": 10,
    "network.width": 4,
    "client.batch-size": 8,
    "rounds": 4,
}
_EFFICIENTNET_B0: dict[str, Value] = {
    **_EFFICIENTNET,
    **_CIFAR100,
    "client.batch-size": 512,
    "rounds": 20,
}
_NF_8: dict[str, Value] = {"network.kind": "resnet-v2", "network.depth": 20, "network.width": 8}
_NF_50: dict[str, Value] = {
    **_CIFAR100,
    "network.kind": "resnet-v2",
    "network.depth": 50,
    "client.batch-size": 64,
    "rounds": 100,
}


_SEEDS = (1, 2, 3, 5, 6)  # 4 is that of the study `learning-rates`


def _scales(
    make: Callable[[Scale], Study], small: dict[str, Value], seeds: int, full: dict[str, Value]
) -> dict[str, Callable[[], Study]]:
    return {
        "small": partial(make, Scale(_ALONE.replace(small), _SEEDS[:seeds])),
        "full": partial(make, Scale(_ALONE.replace(full), _SEEDS, "-full")),
    }


PAPERS: dict[str, dict[str, Callable[[], Study]]] = {
    "depth": _scales(
        depth,
        {**_ADAM, "network.width": 8, "rounds": 2},
        5,
        {**_ADAM, **_CIFAR100, "client.batch-size": 64, "rounds": 30},
    ),
    "batch-size": _scales(batch_size, _RESNET_8, 3, _RESNET_18),
    "bn-backward": _scales(
        bn_backward,
        {"network.kind": "ffnn"},
        3,
        {"network.kind": "ffnn", "data.name": "cifar10"},
    ),
    "sn-efficientnet": _scales(sn_efficientnet, _NARROW_EFFICIENTNET, 3, _EFFICIENTNET_B0),
    "nf-resnet": _scales(nf_resnet, {**_NF_8, "rounds": 2}, 3, _NF_50),
}
"""Study -> scale -> how it is made; the first scale is the one that runs if none is asked for."""
