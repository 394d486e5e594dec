"""A recipe: for every kind of slot in a skeleton, the layer that fills it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fl.nn.initialization import Scheme
from fl.nn.layers.convs import Kernel, plain
from fl.nn.layers.merges import Add, Merge, product


@dataclass(frozen=True)
class Place:
    """The position of a slot in a network, as far as layers depend on it."""

    channels: int
    """Channels C of the inputs (batch, C, *space)."""
    per_channel: bool = False
    """Whether learnable scalars are one a channel."""
    native: type[nn.Module] = nn.ReLU
    """The activation that the skeleton's own paper has at this place."""
    groups: int | None = None
    """Groups of channels, of a recipe that is `grouped`; None: the recipe's own."""
    tokens: bool = False
    """Whether space is a sequence of tokens, as in a transformer."""


Slot = Callable[[Place], nn.Module]
"""Makes the layer for a place."""


@dataclass(frozen=True)
class Recipe:
    """The layers that fill the slots of a network."""

    label: str
    """The recipe's name in plots."""
    norm: Slot
    """Makes the normalizer, or what replaces it."""
    activation: Slot
    """Makes the activation."""
    description: str = ""
    """One sentence for reports."""
    fits: frozenset[str] = frozenset()
    """The skeletons, as `network.kind` names them, that the recipe can fill; empty: every one."""
    batchnorm: bool = False
    """Whether its networks have `fl.nn.BatchNorm` layers, to which the knobs `state.*` apply."""
    grouped: bool = False
    """Whether its normalizer takes the groups that the knob `network.groups` asks for."""
    caveat: str = ""
    """What about the recipe differs from its paper; empty where nothing does."""
    bias: bool = True
    """Whether convolutions have a bias; a norm with a shift makes it redundant."""
    conv: Callable[[Kernel], nn.Module] = plain
    """Makes the convolution."""
    merge: type[Merge] = Add
    """Merges a residual branch with its shortcut."""
    excite: Callable[[Tensor, Tensor], Tensor] = product
    """Applies a gate in (0, 1) to a signal, in squeeze-and-excitation: (signal, gate) -> signal."""
    alpha: float | None = None
    """Weight of a residual branch, whose input is then divided by its expected spread; None: 1, and
    nothing is divided."""
    init: Scheme | None = None
    """Initial weights for `network.init=auto`; None: the skeleton's."""
    clip: str | None = None
    """Gradient clipping for `client.clip=auto`; None: `fl.config.parts.CLIP`."""

    @property
    def converts(self) -> bool:
        """Whether the recipe can be put into a network without slots, by `fl.nn.convert`."""
        return self.alpha is None and self.merge is Add and self.excite is product
