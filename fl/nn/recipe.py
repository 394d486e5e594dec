"""What a recipe is: for every kind of slot in a skeleton, the layer that fills it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fl.nn.initialization import Scheme
from fl.nn.layers.convs import Kernel, plain
from fl.nn.layers.merges import Add, Merge, product


@dataclass(frozen=True)
class Place:
    """Where in a network a slot is."""

    channels: int
    """Channels C of the inputs (batch, C, *space)."""
    per_channel: bool = False
    """Whether learnable scalars are one a channel."""
    native: type[nn.Module] = nn.ReLU
    """The activation that the skeleton's own paper has there."""
    tokens: bool = False
    """Whether space is a sequence of tokens, as in a transformer."""


Slot = Callable[[Place], nn.Module]
"""Makes the layer for a place."""


@dataclass(frozen=True)
class Recipe:
    """What fills the slots of a network."""

    label: str
    """Its name in plots."""
    description: str
    """One sentence."""
    norm: Slot
    """In the place of a normalizer."""
    activation: Slot
    """In the place of an activation."""
    fits: frozenset[str]
    """The skeletons, as `network.kind` names them, that it can fill."""
    caveat: str = ""
    """What of it is not in its paper; empty where nothing is."""
    bias: bool = True
    """Whether convolutions have a bias; a norm with a shift makes it redundant."""
    conv: Callable[[Kernel], nn.Module] = plain
    """In the place of a convolution."""
    merge: type[Merge] = Add
    """Where a residual branch and its shortcut meet."""
    excite: Callable[[Tensor, Tensor], Tensor] = product
    """(signal, gate in (0, 1)) -> signal, in squeeze-and-excitation."""
    alpha: float | None = None
    """Weight of a residual branch, whose input is then divided by its expected spread."""
    init: Scheme | None = None
    """Initial weights for `network.init=auto`; None leaves them to the skeleton."""
    clip: str | None = None
    """Gradient clipping for `client.clip=auto`; None: as for all others."""
