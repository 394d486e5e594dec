"""What residual networks have in common: a stem, and stages of blocks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from torch import nn

from fl.nn.layers.merges import doubled_product
from fl.nn.layers.pools import overlapping_max
from fl.nn.layers.squeeze import SqueezeExcite
from fl.nn.slots import Size, Slots

EXPANSION = 4
"""Channels that leave a bottleneck, over those inside (arXiv 1512.03385, table 1)."""


@dataclass(frozen=True)
class Stages:
    """Blocks a stage; every stage has twice the channels of the one before, on half the side."""

    blocks: tuple[int, ...]
    """How many blocks each stage has."""
    bottleneck: bool = False
    """Whether blocks are bottlenecks."""

    @classmethod
    def of_depth(cls, depth: int, named: Mapping[int, "Stages"], kind: str) -> "Stages":
        """Return the stages of a network with as many layers with weights.

        Args:
            depth: a key of `named`, or else 6n + 2: three stages of n basic blocks.
            named: depths with stages of their own; they take precedence where they are 6n + 2.
            kind: name of the network, for the message.

        Raises:
            ValueError: neither of the two.
        """
        if depth in named:
            return named[depth]
        blocks, rest = divmod(depth - 2, 6)
        if blocks >= 1 and not rest:
            return cls((blocks,) * 3)
        below = [d for d in range(8, depth) if d in named or d % 6 == 2][-1:]
        above = next(d for d in count(max(depth, 8)) if d in named or d % 6 == 2)
        raise ValueError(
            f"depth={depth} is neither 6n + 2 nor one of {', '.join(map(str, named))}, "
            f"as a {kind} needs; try {' or '.join(map(str, [*below, above]))}"
        )


@dataclass(frozen=True)
class Position:
    """What is particular to a block at its position in the network."""

    inputs: int
    """Channels in."""
    outputs: int
    """Channels out."""
    stride: int
    """Stride of the block, in pixels."""
    bottleneck: bool
    """Whether it is a bottleneck of three convolutions; else it is a basic block of two."""
    opens: bool
    """Whether the block is the first of a stage."""
    drop: float
    """Share of examples for which training drops the block's branch."""
    squeezed: int = 0
    """Channels inside the squeeze-and-excitation that ends the branch; 0: there is none."""

    @property
    def reshapes(self) -> bool:
        """Whether the block's output has another shape than its input."""
        return self.stride != 1 or self.inputs != self.outputs

    def kernels(self) -> list[tuple[int, int, int, int]]:
        """Return inputs, outputs, side and stride of the convolutions of its branch.

        In a bottleneck, the one of side 3 has the stride, as in torchvision and timm
        (arXiv 1512.03385 has it in the first).
        """
        if not self.bottleneck:
            return [
                (self.inputs, self.outputs, 3, self.stride),
                (self.outputs, self.outputs, 3, 1),
            ]
        inner = self.outputs // EXPANSION
        return [
            (self.inputs, inner, 1, 1),
            (inner, inner, 3, self.stride),
            (inner, self.outputs, 1, 1),
        ]


def positions(stages: Stages, size: Size) -> Iterator[Position]:
    """Yield the blocks in order.

    The first stage has `size.width` channels (inside, where it has bottlenecks) and stride 1.
    Block l of L is dropped with probability l/L·`size.stochastic_depth`: the linear rule of
    arXiv 1603.09382, equation 4.
    """
    inputs, number, total = size.width, 0, sum(stages.blocks)
    for stage, blocks in enumerate(stages.blocks):
        outputs = size.width * 2**stage * (EXPANSION if stages.bottleneck else 1)
        for index in range(blocks):
            number += 1
            opens = index == 0
            stride = 2 if opens and stage > 0 else 1
            drop = size.stochastic_depth * number / total
            squeezed = -(-outputs // size.squeeze) if size.squeeze else 0
            yield Position(inputs, outputs, stride, stages.bottleneck, opens, drop, squeezed)
            inputs = outputs


def squeeze_excite(slots: Slots, at: Position) -> SqueezeExcite:
    """Return what ends a block's branch: gates of channels (arXiv 1709.01507, figure 3).

    With an α the gate is doubled, which makes up for a sigmoid that is 1/2 at 0, as in NFNets and
    in timm's NF-ResNets with squeeze-and-excitation.
    """
    excite = slots.recipe.excite if slots.recipe.alpha is None else doubled_product
    return SqueezeExcite(at.outputs, at.squeezed, slots.activation(at.squeezed), excite)


def stem_kernel(stride: int) -> tuple[int, int]:
    """Return side and stride of the first convolution: 3 and the stem's; of stride 4, 7 and 2."""
    return (7, 2) if stride == 4 else (3, stride)


def stem_pool(slots: Slots, stride: int) -> nn.Module:
    """Return what ends a stem: of stride 4, the pool of arXiv 1512.03385, table 1; else nothing."""
    return overlapping_max(slots.dims) if stride == 4 else nn.Identity()
