"""ResNet: blocks that add to what they are given, with the activation behind the sum."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.architectures.stages import (
    Position,
    Stages,
    positions,
    squeeze_excite,
    stem_kernel,
    stem_pool,
)
from fl.nn.layers.pools import global_mean
from fl.nn.slots import Size, Slots, before_classifier, linear

FOUR_STAGES = {
    18: Stages((2, 2, 2, 2)),
    34: Stages((3, 4, 6, 3)),
    50: Stages((3, 4, 6, 3), bottleneck=True),
    101: Stages((3, 4, 23, 3), bottleneck=True),
    152: Stages((3, 8, 36, 3), bottleneck=True),
}
"""The networks of arXiv 1512.03385, table 1, by their depth."""


def auto_width(depth: int) -> int:
    """Return the paper's channels of the first stage: 64 with four stages, 16 with three."""
    return 64 if depth in FOUR_STAGES else 16


class Block(nn.Module):
    """activation(merge(shortcut(x), branch(x))).

    A basic branch is conv, norm, activation, conv, norm with kernels of side 3; a bottleneck has
    three convolutions, of sides 1, 3 and 1, and a quarter of the channels inside. Where it is asked
    for, squeeze-and-excitation ends the branch (SE-ResNet, arXiv 1709.01507). The shortcut
    is the identity, or a convolution of side 1 with norm where the shape changes
    (arXiv 1512.03385, section 3.3, option B, and figure 5).

    Args:
        slots: what fills them.
        at: the shape.
    """

    def __init__(self, slots: Slots, at: Position):
        super().__init__()
        *early, last = at.kernels()
        self.branch = nn.Sequential(
            *(slots.conv_norm_activation(*kernel) for kernel in early),
            nn.Sequential(slots.conv_norm(*last)),
        )
        if at.squeezed:
            self.branch.append(squeeze_excite(slots, at))
        self.shortcut = nn.Sequential()
        if at.reshapes:
            self.shortcut = nn.Sequential(slots.conv_norm(at.inputs, at.outputs, 1, at.stride))
        self.merge = slots.recipe.merge(at.drop)
        self.activation = slots.activation(at.outputs)

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        return self.activation(self.merge(self.shortcut(x), self.branch(x)))


class ResNet(nn.Module):
    """A stem, stages of blocks, average pool, dropout, classifier.

    Depths 18, 34, 50, 101 and 152 are the four-stage networks of arXiv 1512.03385, table 1, for
    ImageNet (there w = 64, stem stride 4), the last three with bottlenecks. Every other depth is
    6n + 2, as in its section 4.2 for CIFAR: three stages of n basic blocks (there w = 16, stem
    stride 1, and shortcuts without weights, where ours are option B). 50 is 6n + 2, too, and
    means four stages. Shortcuts are not counted.

    The stages have w, 2w, 4w (and 8w) channels, of a bottleneck inside and four times as many
    outside; all but the first start with stride 2. A stem of stride 1 or 2 is a convolution of
    side 3; of stride 4, one of side 7 and stride 2 and a max pool of side 3 and stride 2.
    With `salunet` and depth 18 or 50 it is SaluNet-C-18 or -C-50 (arXiv 2606.02927).

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth; width w; stride of the stem; share of the classifier's inputs that training
            zeroes, and share of examples for which it drops the last branch.

    Raises:
        ValueError: a depth that there is not.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        stages = Stages.of_depth(size.depth, FOUR_STAGES, "resnet")
        blocks = list(positions(stages, size))
        side, stride = stem_kernel(size.stem_stride)
        self.stem = slots.conv_norm_activation(shape[0], size.width, side, stride)
        self.stem.add_module("pool", stem_pool(slots, size.stem_stride))
        self.blocks = nn.Sequential(*(Block(slots, at) for at in blocks))
        self.before_classifier = before_classifier(size)
        self.classifier = linear(blocks[-1].outputs, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        features = global_mean(self.blocks(self.stem(images)))
        return self.classifier(self.before_classifier(features))
