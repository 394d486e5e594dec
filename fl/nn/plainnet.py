"""PlainNet: convolutions in a row, nothing to help them."""

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers import conv_norm, global_mean, linear
from fl.nn.recipes import Recipe


class PlainNet(nn.Module):
    """Convolutions of side 3 with norm and activation; global average pool; linear classifier.

    The first half of the convolutions (rounded up) has `width` channels; the second half has
    twice as many and starts with stride 2. No residual connections. Source of the idea: arXiv
    2604.19453, whose widths and strides we could not read; they are derived (ours). So is the
    counting: `depth` is the number of layers with weights, convolutions plus classifier, as in
    `ResNet`.

    Args:
        recipe: what fills the slots.
        channels: channels of an image.
        classes: numbers to return for an image.
        depth: layers with weights, at least 2.
        width: channels of the first half.
        stem_stride: stride of the first convolution, in pixels.
        dims: dimensions of space, 1 to 3.
        per_channel: as `fl.config.Network.per_channel`.

    Raises:
        ValueError: depth < 2.
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
        if depth < 2:
            raise ValueError(f"depth={depth} is too small for a plainnet; it needs at least 2")
        convs = depth - 1
        half = (convs + 1) // 2
        widths = [channels] + [width] * half + [2 * width] * (convs - half)
        strides = [stem_stride if i == 0 else 2 if i == half else 1 for i in range(convs)]
        layers = []
        for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False):
            layer = conv_norm(
                recipe, inputs, outputs, 3, stride, dims=dims, per_channel=per_channel
            )
            layer["activation"] = recipe.activation(outputs, per_channel)
            layers.append(nn.Sequential(layer))
        self.layers = nn.Sequential(*layers)
        self.classifier = linear(widths[-1], classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(global_mean(self.layers(images)))
