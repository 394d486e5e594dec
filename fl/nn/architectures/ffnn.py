"""FFNN: linear layers in a row, on whole images."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.slots import Size, Slots, before_classifier, linear


class FFNN(nn.Module):
    """The image as one vector; hidden layers of linear, norm and activation; linear classifier.

    Norms see (batch, units), so a batch of one image has one value a unit. `size.stem_stride`
    and `size.stochastic_depth` have no meaning here: there is neither a pixel left to stride
    over nor a branch to drop.

    Source: "Designing Normalizer-Free EfficientNets" (Dewyse, JKU Linz, 2025; code
    MT_Normalizer_free_Neural_Nets): 3072 inputs, then layers of 100 units. There, initial weights
    are N(0, 2/fan_out), which is our `he` but for the first and last layer; all linear layers have
    a bias, which a norm's mean cancels, and which is left out here where the recipe says so.

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image.
        classes: numbers to return for an image.
        size: depth from 2 up, the layers with weights: depth - 1 hidden ones and the classifier;
            width, the units of a hidden layer; share of the classifier's inputs to drop.

    Raises:
        ValueError: depth < 2.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        if size.depth < 2:
            raise ValueError(f"depth={size.depth} is too small for an ffnn; it needs at least 2")
        widths = [math.prod(shape)] + [size.width] * (size.depth - 1)
        self.layers = nn.Sequential(*(_hidden(slots, *pair) for pair in pairwise(widths)))
        self.before_classifier = before_classifier(size)
        self.classifier = linear(size.width, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(self.before_classifier(self.layers(images.flatten(1))))


def _hidden(slots: Slots, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            linear=linear(inputs, outputs, slots.recipe.bias),
            norm=slots.norm(outputs),
            activation=slots.activation(outputs),
        )
    )
