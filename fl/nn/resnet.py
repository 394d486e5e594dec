"""ResNet for small images: basic blocks in three stages."""

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers import Linear, conv_norm
from fl.nn.recipes import Recipe


class Block(nn.Module):
    """activation(norm(conv(activation(norm(conv(x))))) + shortcut(x)), both convolutions 3x3.

    The shortcut is the identity, or a 1x1 convolution with norm where the shape changes
    (arXiv 1512.03385, section 3.3, option B).

    Args:
        recipe: what fills the slots.
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut, in pixels.
        per_channel: as `fl.config.Network.per_channel`.
    """

    def __init__(self, recipe: Recipe, inputs: int, outputs: int, stride: int, per_channel: bool):
        super().__init__()
        first = conv_norm(recipe, inputs, outputs, 3, stride, per_channel)
        first["activation"] = recipe.activation(outputs, per_channel)
        self.first = nn.Sequential(first)
        self.second = nn.Sequential(conv_norm(recipe, outputs, outputs, 3, 1, per_channel))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv_norm(recipe, inputs, outputs, 1, stride, per_channel)
            )
        self.activation = recipe.activation(outputs, per_channel)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the block's output; with stride 2, rows = ⌈height / 2⌉."""
        return self.activation(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet: a 3x3 stem, three stages of n basic blocks, average pool, classifier.

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
        per_channel: bool = False,
    ):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            near = " or ".join(str(6 * n + 2) for n in (blocks, blocks + 1) if n >= 1)
            raise ValueError(f"depth={depth} is not 6n + 2, as a resnet needs; try {near or 8}")
        stem = conv_norm(recipe, channels, width, 3, stem_stride, per_channel)
        stem["activation"] = recipe.activation(width, per_channel)
        self.stem = nn.Sequential(stem)
        self.blocks = nn.Sequential()
        inputs = width
        for outputs in (width, 2 * width, 4 * width):
            for index in range(blocks):
                stride = 2 if index == 0 and outputs > width else 1
                self.blocks.append(Block(recipe, inputs, outputs, stride, per_channel))
                inputs = outputs
        self.classifier = Linear(inputs, classes)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(self.blocks(self.stem(images)).mean((-2, -1)))
