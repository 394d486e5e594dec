"""NFNet: normalizer-free networks with grouped bottlenecks, squeeze-excite and deep stems."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.merges import ScaledAdd, doubled_product
from fl.nn.layers.pools import AveragePool, global_mean
from fl.nn.layers.squeeze import SqueezeExcite
from fl.nn.slots import Size, Slots, before_classifier, linear

VARIANTS = ("F0", "F1", "F2", "F3", "F4", "F5", "F6")
"""The values that `network.depth` may have; Fn is at index n."""
BLOCKS = (1, 2, 6, 3)
"""Blocks a stage of F0; Fn has n + 1 times as many."""
CHANNELS = (2, 4, 12, 12)
"""Channels that leave a stage's blocks, over the width of the stem; half as many inside."""
FEATURES = 24
"""Channels of the last convolution, over the width of the stem."""


class ScaledActivation(nn.Module):
    """γ·f(x): of variance 1 for standard normal x, so that no convolution has to make up for f.

    Args:
        slots: what f is.
        channels: channels of x.
    """

    def __init__(self, slots: Slots, channels: int):
        super().__init__()
        self.activation = slots.activation(channels)
        self.gain = slots.gain

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return γ·f(x)."""
        return self.activation(x) * self.gain


class Dimensions(NamedTuple):
    """The dimensions of a block."""

    inputs: int
    """Channels in."""
    outputs: int
    """Channels out."""
    group: int
    """Channels of a group; divides half of the outputs."""
    stride: int
    """Stride of the first convolution of side 3, in pixels."""


class Block(nn.Module):
    """merge(shortcut, branch(out)) with out = γ·f(x) / spread, and merge = skip + α·g·branch.

    The branch is a convolution of side 1, two of side 3 in groups, one of side 1, with γ·f
    between them, and squeeze-excite; g is a learnable scalar, initially 0. The shortcut is x;
    where the shape changes, it is out, averaged over squares of side 2 if the stride is 2,
    through a convolution of side 1.

    Args:
        slots: what fills them.
        dimensions: channels and stride.
        spread: the expected standard deviation of x.
        drop: share of examples for which training drops the branch.
    """

    def __init__(self, slots: Slots, dimensions: Dimensions, spread: float, drop: float):
        super().__init__()
        inputs, outputs, group, stride = dimensions
        inner = outputs // 2
        groups = inner // group
        self.spread = spread
        self.activation = ScaledActivation(slots, inputs)
        self.branch = nn.Sequential(
            OrderedDict(
                conv1=_conv(slots, inputs, inner, 1),
                activation1=ScaledActivation(slots, inner),
                conv2=_conv(slots, inner, inner, 3, stride, groups),
                activation2=ScaledActivation(slots, inner),
                conv3=_conv(slots, inner, inner, 3, 1, groups),
                activation3=ScaledActivation(slots, inner),
                conv4=_conv(slots, inner, outputs, 1),
                attention=SqueezeExcite(outputs, inner, nn.ReLU(), doubled_product),
            )
        )
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = _shortcut(slots, inputs, outputs, stride)
        self.merge = ScaledAdd(slots.recipe.alpha, drop, skip_gain=True)  # pyrefly: ignore

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        out = self.activation(x) / self.spread
        skip = x if self.shortcut is None else self.shortcut(out)
        return self.merge(skip, self.branch(out))


class NFNet(nn.Module):
    """NFNet-F0 to -F6: a deep stem, four stages of blocks, a last convolution, a classifier.

    The stem has four convolutions of side 3, strides 2, 1, 1, 2 and w/8, w/4, w/2, w channels,
    rounded down to 1 or more; the paper has w = 128. The stages have 2w, 4w, 12w and 12w
    channels and strides 1, 2, 2, 2, the grouped convolutions w channels a group, and the last
    convolution 24w, so that of all the network only the stem is ever rounded. Fn has n + 1 times
    the 1, 2, 6 and 3 blocks of F0. Block l is given x_l of expected spread β_l and returns
    x_l + α·g·f_l(x_l/β_l); β² grows by α² a block, and the first block of a stage, whose shortcut
    is a convolution, starts it at 1 again. Block l of L = 0 … L - 1 is dropped with probability
    l/L·`size.stochastic_depth`, an example at a time and without rescaling. Convolutions of
    stride 2 pad as TensorFlow's "SAME" does.

    Source: arXiv 2102.06171, section 4 and table 1, and its authors' code (deepmind-research,
    nfnets), whose weights timm's `dm_nfnet_f0` to `_f6` hold; GELU is the paper's activation.
    There, dropout is .2, .3, .4, .4, .5, .5, .5 (F0 to F6) and stochastic depth .25; here both
    are 0 unless the knobs say otherwise. Differences: the classifier's initial weights are the
    scheme's (the paper's: N(0, 0.01²)). Squeeze-excite keeps the paper's ReLU with every recipe.

    Args:
        slots: what fills them; their recipe has an α and no normalizer.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth n of Fn; width w of the stem from 2 up; dropout and stochastic depth.

    Raises:
        ValueError: width < 2: a kernel of one weight has no spread to standardize.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        width = size.width
        if width < 2:
            raise ValueError(f"width={width} is too small for an nfnet; it needs at least 2")
        self.stem = _stem(slots, shape[0], width)
        self.blocks = _blocks(slots, size)
        features = FEATURES * width
        self.conv = _conv(slots, CHANNELS[-1] * width, features, 1)
        self.activation = ScaledActivation(slots, features)
        self.before_classifier = before_classifier(size)
        self.classifier = linear(features, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        features = self.activation(self.conv(self.blocks(self.stem(images))))
        return self.classifier(self.before_classifier(global_mean(features)))


def _conv(
    slots: Slots, inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    """Return a convolution with γ = 1: it is in the activations."""
    kernel = slots.kernel(inputs, outputs, side, stride, groups=groups)
    return slots.recipe.conv(replace(kernel, same=True))


def _stem(slots: Slots, inputs: int, width: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (share, stride) in enumerate([(8, 2), (4, 1), (2, 1), (1, 2)], start=1):
        outputs = max(1, width // share)
        layers[f"conv{number}"] = _conv(slots, inputs, outputs, 3, stride)
        if share > 1:
            layers[f"activation{number}"] = ScaledActivation(slots, outputs)
        inputs = outputs
    return nn.Sequential(layers)


def _blocks(slots: Slots, size: Size) -> nn.Sequential:
    blocks, inputs, spread = nn.Sequential(), size.width, 1.0
    total = sum(BLOCKS) * (size.depth + 1)
    for stage, (count, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True)):
        outputs = channels * size.width
        for index in range(count * (size.depth + 1)):
            opens = index == 0
            stride = 2 if opens and stage > 0 else 1
            drop = size.stochastic_depth * len(blocks) / total
            dimensions = Dimensions(inputs, outputs, size.width, stride)
            blocks.append(Block(slots, dimensions, spread, drop))
            spread = math.hypot(1.0 if opens else spread, slots.recipe.alpha)  # pyrefly: ignore
            inputs = outputs
    return blocks


def _shortcut(slots: Slots, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride != 1:
        layers["pool"] = AveragePool(2)
    layers["conv"] = _conv(slots, inputs, outputs, 1)
    return nn.Sequential(layers)
