"""The network: which skeleton, how large, and how it begins."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fl.config.components import Component, is_component
from fl.config.parsing import Value
from fl.config.parts.part import Options, Part
from fl.config.parts.ranges import Positive, Share


class Network(Part):
    """The skeleton of the network. The recipe fills its slots."""

    kind: (
        Literal["plainnet", "cnn", "resnet", "resnet-v2", "nfnet", "efficientnet", "ffnn", "vit"]
        | Component
    ) = "plainnet"
    """The network family. `plainnet`: convolutions in a row without skip connections. `cnn`: two
    convolutions with max pooling. `resnet`: residual blocks. `resnet-v2`: pre-activation residual
    blocks; with a recipe `nf`, NF-ResNet. `nfnet`: NFNet-F0 to -F6. `efficientnet`: EfficientNet,
    B0 at its `auto` depth and width. `ffnn`: linear layers in a row on flattened images. `vit`: a
    small vision transformer. Or a network of your own, `path/file.py:name`, or of a
    package, `timm:NAME` or `torchvision:NAME`; see docs/guide/networks.md."""
    depth: Positive | Literal["auto", "F0", "F1", "F2", "F3", "F4", "F5", "F6"] = "auto"
    """Layers with weights on the longest path; blocks for efficientnet and vit. `auto`: 8 for
    plainnet; 3 for cnn, which takes no other; 20 for resnets; F0 for nfnet, which takes F0 to F6;
    16 for efficientnet, which takes 7 or more; 11 for ffnn; 6 for vit. Resnets take 6n + 2, or 18,
    34, 50, 101 or 152 (resnet-v2 also 26), which have four stages."""
    width: Positive | Literal["auto"] = "auto"
    """Channels of the first stage; each later stage doubles them. For nfnet and efficientnet,
    channels of the stem, with all other layers in proportion. For ffnn, units of a layer; for vit,
    channels of a token. `auto`: 64 for resnets with four stages, 128 for nfnet, 32 for
    efficientnet, 100 for ffnn, 192 for vit, and 16 for all others."""
    init: Literal["auto", "own", "torch", "he", "lecun", "critical"] = "auto"
    """Initial weights. `own`: what a network of your own comes with, such as pretrained ones;
    `torch`: PyTorch's default; `he`: N(0, 2/fan_in); `lecun`: N(0, 1/fan_in); `critical`: behind an
    activation f N(0, 1/(fan_in·E[f²])), by which signals keep their size. `auto` takes the recipe's
    own, or else `lecun` for vit and `he` for all others; `own` with the recipe `own`."""
    gain: float | str = 1.0
    """What `network.init=critical` lets a layer and the activation in front of it make of the mean
    square of signals: a factor. `backward:X`: of gradients, χ = X. A recipe's name: what it has
    with He's weights, 1.47 for zc-swish."""
    stem_stride: Literal["auto", 1, 2, 4] = "auto"
    """Stride of the first layers, in pixels; for vit, the side of a patch. 4 is the stride for
    ImageNet, which plainnet and cnn don't take. `auto`: 1 for cnn, 4 for vit, 4 for nfnet, which
    takes no other, and 2 for all others."""
    per_channel: bool = False
    """Whether activations learn one scalar per channel (true) or one per layer (false)."""
    groups: Annotated[int, Field(ge=1, le=32)] | Literal["auto"] = "auto"
    """Groups of channels that group normalization, of the recipes groupnorm and ws-groupnorm,
    normalizes by themselves (arXiv 1803.08494 has 32); they have to divide the channels of every
    layer. `auto`: as many as divide a layer's channels and leave two channels or more each, but at
    most 4."""
    squeeze: Annotated[int, Field(ge=0)] = 0
    """With r, squeeze-and-excitation ends every residual branch of resnet and resnet-v2, with an
    r-th of the branch's channels inside (arXiv 1709.01507 has 16). 0: none."""
    feature_norm: bool = False
    """Whether the classifier's inputs z, d features of an example, become √d·z/‖z‖ (arXiv
    2308.09565)."""
    dropout: Share = 0.0
    """Probability with which training zeroes each input of the classifier."""
    stochastic_depth: Share = 0.0
    """Probability with which training drops an example's last residual branch; earlier branches
    are dropped less often. plainnet, cnn and ffnn ignore it."""
    options: Options = ""
    """The own parameters of a network that is a component, as `network.options.NAME`."""

    @property
    def drops(self) -> bool:
        """Whether training uses dropout or stochastic depth."""
        return bool(self.dropout or self.stochastic_depth)


ADDED: dict[str, Value] = {
    "network.gain": 1.0,
    "network.groups": "auto",
    "network.squeeze": 0,
    "network.feature-norm": False,
}
"""Knobs that the first experiments did not have, and the values that stand for what those did."""

_UNMINDED: dict[str, tuple[str, ...]] = {
    "plainnet": ("stochastic-depth",),
    "cnn": ("stochastic-depth",),
    "ffnn": ("stem-stride", "stochastic-depth"),
    "yours": (
        *("depth", "width", "stem-stride", "per-channel"),
        *("groups", "squeeze", "feature-norm", "dropout", "stochastic-depth"),
    ),
}
"""The knobs that a kind of network ignores."""


def idle_network(knobs: Mapping[str, Value]) -> set[str]:
    """Return the flat keys of `network.*` that the kind of network ignores."""
    kind = str(knobs.get("network.kind"))
    ignored = _UNMINDED.get("yours" if is_component(kind) else kind, ())
    return {f"network.{name}" for name in ignored}
