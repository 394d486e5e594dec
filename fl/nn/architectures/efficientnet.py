"""EfficientNet: mobile inverted bottlenecks with squeeze-and-excitation, in seven stages."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.pools import global_mean
from fl.nn.layers.squeeze import SqueezeExcite
from fl.nn.slots import Size, Slots, before_classifier, linear


class Stage(NamedTuple):
    """A row of the table of B0's stages."""

    expansion: int
    """Channels inside a block, over those of its input."""
    side: int
    """Side of the depthwise kernel, in pixels."""
    stride: int
    """Stride of the first block, in pixels."""
    channels: int
    """Channels that leave the stage."""
    repeats: int
    """How many blocks there are."""


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
"""Stages 2 to 8 of arXiv 1905.11946, table 1; strides as in its authors' code."""
STEM, HEAD = 32, 1280
"""Channels of B0's stages 1 and 9."""


class MBConv(nn.Module):
    """merge(x, norm(project(squeeze-excite(depthwise(expand(x)))))), the last without activation.

    `expand` is a convolution of side 1 to expansion·inputs channels, left out at expansion 1, and
    `depthwise` one within each channel; norm and activation follow both. Squeeze-and-excitation
    has ⌈inputs/4⌉ numbers in its middle. Without a shortcut, where the shape changes, the
    block is its branch. Source: arXiv 1801.04381, section 3.4; arXiv 1905.11946, section 4.

    Args:
        slots: what fills them.
        inputs: channels in.
        outputs: channels out.
        stage: expansion and kernel.
        stride: of the depthwise convolution, in pixels.
        drop: share of examples for which training drops the branch, where there is a shortcut.
    """

    def __init__(
        self, slots: Slots, inputs: int, outputs: int, stage: Stage, stride: int, drop: float
    ):
        super().__init__()
        hidden = stage.expansion * inputs
        layers = OrderedDict[str, nn.Module]()
        if stage.expansion > 1:
            layers["expand"] = slots.conv_norm_activation(inputs, hidden, 1)
        layers["depthwise"] = slots.conv_norm_activation(
            hidden, hidden, stage.side, stride, groups=hidden
        )
        squeezed = -(-inputs // 4)
        layers["squeeze"] = SqueezeExcite(
            hidden, squeezed, slots.activation(squeezed), slots.recipe.excite
        )
        layers["project"] = nn.Sequential(slots.conv_norm(hidden, outputs, 1))
        self.branch = nn.Sequential(layers)
        fits = stride == 1 and inputs == outputs
        self.merge = slots.recipe.merge(drop) if fits else None

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        branch = self.branch(x)
        return branch if self.merge is None else self.merge(x, branch)


class EfficientNet(nn.Module):
    """EfficientNet-B0: a stem of side 3, seven stages of `MBConv`, a head of side 1, classifier.

    Width w scales every number of channels c of B0 to ⌈c·w/32⌉, which is exact for multiples of
    4. Depth is the number of blocks: stages of r blocks get ⌈d·r⌉, as in the authors' code, and
    a depth is possible where some d > 0 gives it: 7 (no shortcut at all), 8, 10, 13, 15, 16 (B0),
    23 (B1, B2), 26 (B3), ... Sides are padded on both ends, as in PyTorch's versions of it; the
    authors' TensorFlow pads strides at the end. Dropout is in front of the classifier; block i of
    n has stochastic depth of rate·i/n, i from 0, as in the authors' code.

    Source: arXiv 1905.11946, table 1 and section 4. Derived (ours): the rounding of channels
    (the authors round to multiples of 8, too coarse for networks this small) and depth as a knob.

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth, 16 in B0; width, 32 in B0; stride of the first convolution; the two rates.

    Raises:
        ValueError: a depth that no d gives.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        stem, head = _scaled(STEM, size.width), _scaled(HEAD, size.width)
        self.stem = slots.conv_norm_activation(shape[0], stem, 3, size.stem_stride)
        self.blocks = nn.Sequential()
        inputs = stem
        for stage, repeats in zip(B0, _repeats(size.depth), strict=True):
            outputs = _scaled(stage.channels, size.width)
            for stride in (stage.stride, *(1,) * (repeats - 1)):
                drop = size.stochastic_depth * len(self.blocks) / size.depth
                self.blocks.append(MBConv(slots, inputs, outputs, stage, stride, drop))
                inputs = outputs
        self.head = slots.conv_norm_activation(inputs, head, 1)
        self.before_classifier = before_classifier(size)
        self.classifier = linear(head, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        features = global_mean(self.head(self.blocks(self.stem(images))))
        return self.classifier(self.before_classifier(features))


def _scaled(channels: int, width: int) -> int:
    return -(-channels * width // STEM)


def _repeats(depth: int) -> list[int]:
    """Return the blocks of each stage.

    Stages have up to 4 blocks, so ⌈d·r⌉ can change only behind multiples of 1/12.
    """
    below = 0
    for twelfths in count(1):
        repeats = [-(-stage.repeats * twelfths // 12) for stage in B0]
        if (blocks := sum(repeats)) >= depth:
            break
        below = blocks
    if blocks != depth:
        near = f"{below} or {blocks}" if below else f"{blocks}"
        raise ValueError(f"depth={depth} blocks do not fill an efficientnet's stages; try {near}")
    return repeats
