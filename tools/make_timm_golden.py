"""Make the golden files of tests/fl/nn/golden/ from timm's networks.

    python -m tools.make_timm_golden [NAME]...

runs in the repository's root and needs timm, which our own environment can't have: timm needs
torchvision, whose compiled operators do not load beside every build of torch. They are not used
here, so it is enough to put both beside it:

    pip install --target FOLDER --no-deps timm==1.0.31 torchvision==0.28.0
    PYTHONPATH=FOLDER:. python -m tools.make_timm_golden

Without names all files are made, with names only those of the given rows of `MODELS`. To add a
network, add a row. No weights are stored: see tests/fl/nn/parity.py.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from torch import nn

from tests.fl.nn.parity import GOLDEN, Fingerprint, fingerprint, values

with mock.patch("torch.library.register_fake"):
    import timm  # pyrefly: ignore


def made(
    name: str,
    shape: tuple[int, ...],
    adapt: Callable[[nn.Module], None] = lambda net: None,
    **knobs: object,
) -> Fingerprint:
    """Return the fingerprint of timm's network for ten classes.

    Args:
        name: as timm has it.
        shape: (batch, channels, height, width) of the images.
        adapt: changes the network in place where ours differs on purpose.
        knobs: of timm's network.
    """
    net = timm.create_model(name, num_classes=10, **knobs)  # pyrefly: ignore  # pyrefly: ignore
    adapt(net)
    return fingerprint(net, shape)


def _nfnet(width: int) -> dict[str, object]:
    """Return what makes timm's NFNets as wide as ours are by `network.width`."""
    return {
        "channels": (2 * width, 4 * width, 12 * width, 12 * width),
        "stem_chs": width,
        "group_size": width,
        "num_features": 24 * width,
    }


MODELS: dict[str, Callable[[], Fingerprint]] = {
    # Sides that become odd on the way show how each side pads.
    "nf_resnet26": partial(made, "nf_resnet26", (2, 3, 72, 56)),
    "nf_resnet50": partial(made, "nf_resnet50", (2, 3, 72, 56)),
    "nf_seresnet26": partial(made, "nf_seresnet26", (2, 3, 72, 56)),
    "dm_nfnet_f0": partial(made, "dm_nfnet_f0", (2, 3, 75, 58)),
    "dm_nfnet_f1_narrow": partial(made, "dm_nfnet_f1", (2, 3, 75, 58), **_nfnet(16)),
}
"""The models of timm by the name of the golden file."""

COUNTED = ["resnet18", "resnet50", "efficientnet_b0", "nf_resnet26", "nf_resnet50"]
COUNTED += ["nf_seresnet26", "nf_seresnet50"]
COUNTED += [f"dm_nfnet_f{size}" for size in range(7)]
"""Whose parameters are counted, for 1,000 classes and three channels."""


def count(name: str) -> int:
    """Return how many parameters timm's network has."""
    with torch.device("meta"):
        net = timm.create_model(name)
    return sum(p.numel() for p in net.parameters())


CLIPPED = {"0.weight": (3, 2, 3), "0.bias": (3,), "1.weight": (4, 3), "1.bias": (4,)}
"""Shapes of parameters whose gradients timm clips."""


def clipped() -> dict[str, list[float]]:
    """Return gradients, filled by name like the weights, after adaptive clipping with λ = 0.7."""
    made: dict[str, list[float]] = {}
    for name, shape in CLIPPED.items():
        parameter = nn.Parameter(values(name, shape))
        parameter.grad = values(f"{name}.grad", shape)
        timm.utils.agc.adaptive_clip_grad(parameter, clip_factor=0.7)
        made[name] = parameter.grad.flatten().tolist()
    return made


def main() -> None:
    """Write the files."""
    for name in sys.argv[1:] or MODELS:
        MODELS[name]().save(name)
    counts = json.dumps({name: count(name) for name in COUNTED}, indent=2)
    (GOLDEN / "counts.json").write_text(f"{counts}\n", encoding="utf-8")
    (GOLDEN / "agc.json").write_text(f"{json.dumps(clipped(), indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
