"""ResNet-v2: residual blocks with the activation in front; NF-ResNet is one of them."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.architectures.resnet import FOUR_STAGES
from fl.nn.architectures.stages import (
    Position,
    Stages,
    positions,
    squeeze_excite,
    stem_kernel,
    stem_pool,
)
from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.merges import Merge, ScaledAdd
from fl.nn.layers.pools import AveragePool, global_mean
from fl.nn.slots import Size, Slots, before_classifier, linear

NAMED = {26: Stages((2, 2, 2, 2), bottleneck=True), **FOUR_STAGES}
"""Depths that mean four stages: ResNet's, and timm's 26 (it is 6n + 2, too)."""


def auto_width(depth: int) -> int:
    """Return the papers' channels of the first stage: 64 with four stages, 16 with three."""
    return 64 if depth in NAMED else 16


class Block(nn.Module):
    """merge(shortcut, branch(out)) with out = activation(norm(x)) / spread.

    The branch goes on with its first convolution, and norm, activation and convolution once more,
    or twice in a bottleneck, and where it is asked for with squeeze-and-excitation. The shortcut is
    x, or where the shape changes, a convolution of side 1 of out, which is averaged over squares of
    the stride's side. Without α, spread = 1.

    With α, the merge is skip + α·branch, and the gain of the branch's last convolution is 0 at
    first, so that a block starts as its shortcut. That is timm's form; its authors' code has a
    learnable scalar there ("SkipInit"), which such a gain makes redundant.

    Args:
        slots: what fills them.
        at: the shape.
        spread: the expected standard deviation of x.
    """

    def __init__(self, slots: Slots, at: Position, spread: float):
        super().__init__()
        self.spread = spread
        first, *others = at.kernels()
        self.norm = slots.norm(at.inputs)
        self.activation = slots.activation(at.inputs)
        self.conv = slots.conv(*first)
        self.rest = nn.Sequential(*(_unit(slots, *kernel) for kernel in others))
        last = self.rest[-1].conv
        if isinstance(last, StandardizedConv) and last.gain is not None:
            nn.init.zeros_(last.gain)
        if at.squeezed:
            self.rest.append(squeeze_excite(slots, at))
        self.shortcut = _shortcut(slots, at) if at.reshapes else None
        self.merge = _merge(slots, at.drop)

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the block's output; with stride 2, a side is ⌈side / 2⌉."""
        out = self.activation(self.norm(x))
        if self.spread != 1:
            out = out / self.spread
        skip = x if self.shortcut is None else self.shortcut(out)
        return self.merge(skip, self.rest(self.conv(out)))


def _unit(slots: Slots, inputs: int, outputs: int, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=slots.norm(inputs),
            activation=slots.activation(inputs),
            conv=slots.conv(inputs, outputs, side, stride),
        )
    )


def _shortcut(slots: Slots, at: Position) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if at.stride != 1:
        layers["pool"] = AveragePool(at.stride)
    layers["conv"] = slots.conv(at.inputs, at.outputs, 1)
    return nn.Sequential(layers)


def _merge(slots: Slots, drop: float) -> Merge:
    alpha = slots.recipe.alpha
    return slots.recipe.merge(drop) if alpha is None else ScaledAdd(alpha, drop)


class ResNetV2(nn.Module):
    """A stem, stages of pre-activation blocks, norm, activation, average pool, classifier.

    Source: arXiv 1603.05027. With a row that has an α (`nf`) it is the NF-ResNet of
    arXiv 2101.08692 in timm's form (`nf_resnet26`, `nf_resnet50`): block l is given x_l of
    expected spread β_l and returns x_l + α·f_l(x_l/β_l), so that β² grows by α² a block; the
    first block of a stage, whose shortcut is a convolution, starts it at 1 again.

    Differences: shortcuts that change the shape are an average pool and a convolution, as timm's
    NF-ResNets have them, for every row; the first block does not activate what its shortcut
    takes, where the shape stays (as in timm; arXiv 1603.05027, appendix, does).

    Depths 18, 34, 50, 101 and 152 are ResNet's of four stages, and so is 26 with two bottlenecks
    a stage; every other depth is 6n + 2. Widths, stem (here a convolution alone, with a pool
    for stride 4), arguments and errors: as `fl.nn.architectures.resnet.ResNet`.
    """

    def __init__(self, slots: Slots, shape: Sequence[int], classes: int, size: Size):
        super().__init__()
        stages = Stages.of_depth(size.depth, NAMED, "resnet-v2")
        side, stride = stem_kernel(size.stem_stride)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=slots.conv(shape[0], size.width, side, stride),
                pool=stem_pool(slots, size.stem_stride),
            )
        )
        self.blocks = nn.Sequential()
        spread, outputs = 1.0, size.width
        for at in positions(stages, size):
            self.blocks.append(Block(slots, at, spread))
            spread = math.hypot(1 if at.opens else spread, slots.recipe.alpha or 0)
            outputs = at.outputs
        self.norm = slots.norm(outputs)
        self.activation = slots.activation(outputs)
        self.before_classifier = before_classifier(size)
        self.classifier = linear(outputs, classes)

    def forward(
        self, images: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        features = self.activation(self.norm(self.blocks(self.stem(images))))
        return self.classifier(self.before_classifier(global_mean(features)))
