"""Our networks against timm's: numbers of parameters, and logits and gradients in float64."""

import json
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch

from fl.config import Network
from fl.nn import build
from fl.nn.architectures.resnet_v2 import NAMED
from fl.nn.architectures.stages import Stages
from tests.fl.nn.parity import GOLDEN, Fingerprint, assert_same, fingerprint

COUNTS = json.loads((GOLDEN / "counts.json").read_text(encoding="utf-8"))
KNOBS = {
    "resnet18": (Network(kind="resnet", depth=18, stem_stride=4), "batchnorm"),
    "resnet50": (Network(kind="resnet", depth=50, stem_stride=4), "batchnorm"),
    "nf_resnet26": (Network(kind="resnet-v2", depth=26, stem_stride=4), "nf"),
    "nf_resnet50": (Network(kind="resnet-v2", depth=50, stem_stride=4), "nf"),
    "nf_seresnet26": (Network(kind="resnet-v2", depth=26, stem_stride=4, squeeze=16), "nf"),
    "nf_seresnet50": (Network(kind="resnet-v2", depth=50, stem_stride=4, squeeze=16), "nf"),
}


def make(name: str, classes: int) -> torch.nn.Module:
    return build(*KNOBS[name], (3, 64, 64), classes, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", KNOBS)
def test_has_as_many_parameters(name: str) -> None:
    assert sum(p.numel() for p in make(name, 1000).parameters()) == COUNTS[name]


def nf_resnet(stages: Stages) -> Callable[[str], str]:
    """Return the map from timm's names in an NF-ResNet to ours.

    ================================  ========================
    `stem.conv.*`                     `stem.conv.*`
    `stages.s.b.conv1.*`              `blocks.n.conv.*`
    `stages.s.b.conv2.*`, `conv3.*`   `blocks.n.rest.0.conv.*`, `rest.1.conv.*`
    `stages.s.b.attn_last.fc1.*`      `blocks.n.rest.2.reduce.*`
    `stages.s.b.attn_last.fc2.*`      `blocks.n.rest.2.expand.*`
    `stages.s.b.downsample.conv.*`    `blocks.n.shortcut.conv.*`
    `head.fc.*`                       `classifier.*`
    ================================  ========================
    """
    starts = list(accumulate(stages.blocks, initial=0))
    parts = {"conv1": "conv", "conv2": "rest.0.conv", "conv3": "rest.1.conv"}
    parts |= {"downsample.conv": "shortcut.conv"}
    parts |= {"attn_last.fc1": "rest.2.reduce", "attn_last.fc2": "rest.2.expand"}

    def ours(theirs: str) -> str:
        if not theirs.startswith("stages."):
            return theirs.replace("head.fc.", "classifier.")
        _, stage, block, rest = theirs.split(".", 3)
        part, _, kind = rest.rpartition(".")
        return f"blocks.{starts[int(stage)] + int(block)}.{parts[part]}.{kind}"

    return ours


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("nf_resnet26", 26),
        ("nf_resnet50", 50),
        pytest.param("nf_seresnet26", 26, marks=pytest.mark.slow),
    ],
)
def test_nf_resnet(name: str, depth: int) -> None:
    golden = Fingerprint.load(name)
    ours = nf_resnet(NAMED[depth])
    theirs = {ours(name): name for name in golden.names.tolist()}
    net = make(name, 10)
    assert net.state_dict().keys() == theirs.keys()
    assert_same(fingerprint(net, tuple(golden.shape), theirs.__getitem__), golden)
