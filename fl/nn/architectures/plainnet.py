"""PlainNet: convolutions in a row, nothing to help them."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.pools import global_mean
from fl.nn.slots import Size, Slots, before_classifier, linear


class PlainNet(nn.Module):
    """Convolutions of side 3 with norm and activation; global average pool; linear classifier.

    The first half of the convolutions (rounded up) has `width` channels; the second half has
    twice as many and starts with stride 2. No residual connections. Source of the idea: arXiv
    2604.19453, whose widths and strides we could not read; they are derived (ours). So is the
    counting: `depth` is the number of layers with weights, convolutions plus classifier, as in
    `ResNet`.

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth from 2 up; width of the first half; stride of the first convolution; share of
            the classifier's inputs to drop.

    Raises:
        ValueError: depth < 2.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        if size.depth < 2:
            raise ValueError(f"depth={size.depth} is too small for a plainnet; it needs at least 2")
        convs = size.depth - 1
        half = (convs + 1) // 2
        widths = [shape[0]] + [size.width] * half + [2 * size.width] * (convs - half)
        strides = [size.stem_stride if i == 0 else 2 if i == half else 1 for i in range(convs)]
        self.layers = nn.Sequential(
            *(
                slots.conv_norm_activation(inputs, outputs, 3, stride)
                for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False)
            )
        )
        self.before_classifier = before_classifier(size)
        self.classifier = linear(widths[-1], classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(self.before_classifier(global_mean(self.layers(images))))
