"""ViT: an image as a sequence of patches that attend to each other."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.convs import CONVOLUTIONS
from fl.nn.layers.embeddings import PositionEmbedding
from fl.nn.layers.pools import global_mean
from fl.nn.layers.unset import unset
from fl.nn.slots import Size, Slots, before_classifier, linear

Tokens = Float[Tensor, "batch channels tokens"]


class Patches(nn.Module):
    """The image, cut into patches, each mapped to a token by one and the same linear layer.

    Where a side is no multiple of the patch's, zeros follow its end (derived, ours): arXiv
    2010.11929 (equation 1) has only images that fit.

    Args:
        shape: (channels, *space) of an image.
        channels: of a token.
        side: of a patch, in pixels.
    """

    def __init__(self, shape: Sequence[int], channels: int, side: int):
        super().__init__()
        self.side = side
        self.tokens = math.prod(-(-pixels // side) for pixels in shape[1:])
        convolution = CONVOLUTIONS[len(shape) - 1]
        self.conv = unset(convolution, shape[0], channels, side, stride=side)

    def forward(self, images: Float[Tensor, "batch inputs *space"]) -> Tokens:
        """Return the tokens, in the order of pixels."""
        missing = [end for pixels in images.shape[:1:-1] for end in (0, -pixels % self.side)]
        return self.conv(F.pad(images, missing)).flatten(2)


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762, section 3.2.2).

    The heads divide the channels and have 64 of them or a few more each; where there are fewer
    than 128 channels, there is one head with all of them.

    Args:
        channels: of a token.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.heads = next(h for h in range(max(1, channels // 64), 0, -1) if channels % h == 0)
        self.queries_keys_values = linear(channels, 3 * channels)
        self.projection = linear(channels, channels)

    def forward(self, x: Tokens) -> Tokens:
        """Return for every token what it finds in all of them."""
        together = self.queries_keys_values(x.mT).unflatten(2, (3, self.heads, -1))
        queries, keys, values = together.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(queries, keys, values)
        return self.projection(found.transpose(1, 2).flatten(2)).mT


class MLP(nn.Module):
    """linear(activation(linear(x))) of every token by itself, four times as wide inside.

    Args:
        slots: what fills them.
        channels: of a token.
    """

    def __init__(self, slots: Slots, channels: int):
        super().__init__()
        self.widen = linear(channels, 4 * channels)
        self.activation = slots.activation(4 * channels)
        self.narrow = linear(4 * channels, channels)

    def forward(self, x: Tokens) -> Tokens:
        """Return the new tokens."""
        return self.narrow(self.activation(self.widen(x.mT).mT).mT).mT


class Block(nn.Module):
    """Two residual branches, each with its norm in front: attention(norm(x)), then MLP(norm(x)).

    Source: arXiv 2010.11929, equations 2 and 3.

    Args:
        slots: what fills them.
        channels: of a token.
        drop: share of examples for which training drops a branch.
    """

    def __init__(self, slots: Slots, channels: int, drop: float):
        super().__init__()
        self.attention = nn.Sequential(
            OrderedDict(norm=slots.norm(channels, tokens=True), heads=Attention(channels))
        )
        self.first_merge = slots.recipe.merge(drop)
        self.mlp = nn.Sequential(
            OrderedDict(norm=slots.norm(channels, tokens=True), layers=MLP(slots, channels))
        )
        self.second_merge = slots.recipe.merge(drop)

    def forward(self, x: Tokens) -> Tokens:
        """Return the new tokens."""
        x = self.first_merge(x, self.attention(x))
        return self.second_merge(x, self.mlp(x))


class ViT(nn.Module):
    """A small vision transformer: patches, positions, blocks, norm, mean over tokens, classifier.

    Source: arXiv 2010.11929. Derived (ours): the sizes, as those of arXiv 2606.02927's SaluNet-T
    could not be read, and the mean over tokens in the place of a class token, as in our other
    networks. Norms and activations see (batch, channels, tokens); linear layers have a bias
    whatever the recipe, since no norm follows them directly.

    Nothing but a norm holds its residual stream: with `lecun` weights and width 64, tokens of
    Fashion-MNIST have a standard deviation of 2.4 behind the sixth block with LayerNorm and 1.5
    with SALU, but 21 with GELU alone and 28 with ZC-Swish alone, whose networks learn slowly.

    Args:
        slots: what fills them.
        shape: (channels, *space) of an image; the network takes no other.
        classes: numbers to return for an image.
        size: depth, the number of blocks; width, the channels of a token; stem stride, the side
            of a patch; share of the classifier's inputs to drop; stochastic depth of the last
            block's branches, from which that of block l of L is the share l/L (arXiv
            1603.09382, section 3).
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        width = size.width
        self.patches = Patches(shape, width, size.stem_stride)
        self.positions = PositionEmbedding(width, self.patches.tokens)
        shares = (size.stochastic_depth * (i + 1) / size.depth for i in range(size.depth))
        self.blocks = nn.Sequential(*(Block(slots, width, drop) for drop in shares))
        self.norm = slots.norm(width, tokens=True)
        self.before_classifier = before_classifier(size)
        self.classifier = linear(width, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        tokens = self.blocks(self.positions(self.patches(images)))
        return self.classifier(self.before_classifier(global_mean(self.norm(tokens))))
