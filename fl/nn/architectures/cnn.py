"""CNN: two convolutions with pools, and a linear layer on all pixels that are left."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.pools import halving_max
from fl.nn.slots import Size, Slots, before_classifier, linear


class CNN(nn.Module):
    """Twice a convolution of side 3, norm, activation and max pool; linear classifier.

    The convolutions have `width` and 2·`width` channels; each pool takes a side to ⌈side / 2⌉, so
    that the classifier sees 2·width·∏⌈side / 4⌉ numbers, and no image is too small. It is the
    small network on which simulators of federations are usually timed: 25,578 parameters on
    3x32x32 images at width 16. The form is derived (ours). `size.stochastic_depth` has no meaning
    here: there is no branch to drop.

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth 3, the layers with weights; width, the channels of the first convolution; its
            stride; share of the classifier's inputs to drop.

    Raises:
        ValueError: depth is not 3.
    """

    DEPTH = 3

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        if size.depth != self.DEPTH:
            raise ValueError(f"depth={size.depth} does not fit a cnn, which has 3 layers; use 3")
        channels, *space = shape
        self.layers = nn.Sequential(
            slots.conv_norm_activation(channels, size.width, 3, size.stem_stride),
            halving_max(len(space)),
            slots.conv_norm_activation(size.width, 2 * size.width, 3),
            halving_max(len(space)),
        )
        self.before_classifier = before_classifier(size)
        left = math.prod(math.ceil(side / (4 * size.stem_stride)) for side in space)
        self.classifier = linear(2 * size.width * left, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(self.before_classifier(self.layers(images).flatten(1)))
