"""How a residual branch and its shortcut become one, and how a gate is put on a signal."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

Signal = Float[Tensor, "batch channels *space"]
Gate = Float[Tensor, "batch channels *#space"]


class Merge(nn.Module, ABC):
    """Makes one signal of a shortcut's and a residual branch's; probes look for its kind."""

    @abstractmethod
    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal."""


class Add(Merge):
    """skip + branch (arXiv 1512.03385, equation 1)."""

    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the sum."""
        return skip + branch


class MagnitudePreserving(Merge):
    """((1 - w)·skip + w·branch) / √((1 - w)² + w²), w = 1/2: the mean, scaled by √2.

    Of two independent inputs with second moment 1 the result has second moment 1, which a sum
    doubles. Source: arXiv 2312.02696, equation 88, as used for self-normalizing EfficientNets
    (Dewyse, JKU Linz, 2025; code MT_Normalizer_free_Neural_Nets, `mp_sum`).
    """

    WEIGHT = 0.5

    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal."""
        w = self.WEIGHT
        return ((1 - w) * skip + w * branch) * ((1 - w) ** 2 + w**2) ** -0.5


def product(x: Signal, gate: Gate) -> Signal:
    """Return x·s for a gate s in (0, 1) that broadcasts over space (arXiv 1709.01507, eq. 4)."""
    return x * gate


def magnitude_preserving_product(x: Signal, gate: Gate) -> Signal:
    """Return x·s / √((1 - s)² + s²): the magnitude-preserving sum of 0 and x with weight s.

    A gate of 1/2 leaves 0.7071·x, where x·s leaves 0.5·x. Source: code
    MT_Normalizer_free_Neural_Nets (Dewyse, JKU Linz, 2025), `se_scaled_mult`.
    """
    return x * (gate / torch.hypot(1 - gate, gate))
