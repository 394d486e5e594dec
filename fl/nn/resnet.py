"""ResNet for small images: basic blocks in three stages."""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers import conv_norm, global_mean, linear
from fl.nn.recipes import Recipe


class Block(nn.Module):
    """activation(norm(conv(activation(norm(conv(x))))) + shortcut(x)), both convolutions of side 3.

    The shortcut is the identity, or a convolution of side 1 with norm where the shape changes
    (arXiv 1512.03385, section 3.3, option B).

    Args:
        recipe: what fills the slots.
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut, in pixels.
        dims: dimensions of space, 1 to 3.
        per_channel: as `fl.config.Network.per_channel`.
    """

    def __init__(
        self,
        recipe: Recipe,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        dims: int,
        per_channel: bool,
    ):
        super().__init__()
        conv = partial(conv_norm, recipe, dims=dims, per_channel=per_channel)
        first = conv(inputs, outputs, 3, stride)
        first["activation"] = recipe.activation(outputs, per_channel)
        self.first = nn.Sequential(first)
        self.second = nn.Sequential(conv(outputs, outputs, 3, 1))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride))
        self.activation = recipe.activation(outputs, per_channel)

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        return self.activation(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet: a stem of side 3, three stages of n basic blocks, average pool, classifier.

    The stages have w, 2w and 4w channels; the second and third start with stride 2. It has
    6n + 2 layers with weights, shortcuts not counted. Source: arXiv 1512.03385, section 4.2
    (there w = 16, stem stride 1, and shortcuts without weights, where ours are option B).

    Args:
        recipe: what fills the slots.
        channels: channels of an image.
        classes: numbers to return for an image.
        depth: 6n + 2 with n ≥ 1.
        width: w.
        stem_stride: stride of the first convolution, in pixels.
        dims: dimensions of space, 1 to 3.
        per_channel: as `fl.config.Network.per_channel`.

    Raises:
        ValueError: depth is not 6n + 2.
    """

    def __init__(
        self,
        recipe: Recipe,
        channels: int,
        classes: int,
        depth: int,
        width: int,
        stem_stride: int,
        *,
        dims: int = 2,
        per_channel: bool = False,
    ):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            near = " or ".join(str(6 * n + 2) for n in (blocks, blocks + 1) if n >= 1)
            raise ValueError(f"depth={depth} is not 6n + 2, as a resnet needs; try {near or 8}")
        slots = {"dims": dims, "per_channel": per_channel}
        stem = conv_norm(recipe, channels, width, 3, stem_stride, **slots)
        stem["activation"] = recipe.activation(width, per_channel)
        self.stem = nn.Sequential(stem)
        self.blocks = nn.Sequential()
        inputs = width
        for outputs in (width, 2 * width, 4 * width):
            for index in range(blocks):
                stride = 2 if index == 0 and outputs > width else 1
                self.blocks.append(Block(recipe, inputs, outputs, stride, **slots))
                inputs = outputs
        self.classifier = linear(inputs, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(global_mean(self.blocks(self.stem(images))))
