"""ResNet for small images: basic blocks in three stages."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.slots import Size, Slots, global_mean, linear


class Block(nn.Module):
    """activation(merge(shortcut(x), norm(conv(activation(norm(conv(x))))))), sides of kernels 3.

    The shortcut is the identity, or a convolution of side 1 with norm where the shape changes
    (arXiv 1512.03385, section 3.3, option B).

    Args:
        slots: what fills them.
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut, in pixels.
    """

    def __init__(self, slots: Slots, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = slots.conv_norm_activation(inputs, outputs, 3, stride)
        self.second = nn.Sequential(slots.conv_norm(outputs, outputs, 3))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(slots.conv_norm(inputs, outputs, 1, stride))
        self.merge = slots.recipe.merge()
        self.activation = slots.activation(outputs)

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        return self.activation(self.merge(self.shortcut(x), self.second(self.first(x))))


class ResNet(nn.Module):
    """The CIFAR ResNet: a stem of side 3, three stages of n basic blocks, average pool, classifier.

    The stages have w, 2w and 4w channels; the second and third start with stride 2. It has
    6n + 2 layers with weights, shortcuts not counted. Source: arXiv 1512.03385, section 4.2
    (there w = 16, stem stride 1, and shortcuts without weights, where ours are option B).

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth 6n + 2 with n ≥ 1; width w; stride of the first convolution.

    Raises:
        ValueError: depth is not 6n + 2.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        depth, width = size.depth, size.width
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            near = " or ".join(str(6 * n + 2) for n in (blocks, blocks + 1) if n >= 1)
            raise ValueError(f"depth={depth} is not 6n + 2, as a resnet needs; try {near or 8}")
        self.stem = slots.conv_norm_activation(shape[0], width, 3, size.stem_stride)
        self.blocks = nn.Sequential()
        inputs = width
        for outputs in (width, 2 * width, 4 * width):
            for index in range(blocks):
                stride = 2 if index == 0 and outputs > width else 1
                self.blocks.append(Block(slots, inputs, outputs, stride))
                inputs = outputs
        self.classifier = linear(inputs, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(global_mean(self.blocks(self.stem(images))))
