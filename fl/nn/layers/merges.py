"""Merges of a residual branch with its shortcut, and products of a signal with a gate."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.noise import StochasticDepth

Signal = Float[Tensor, "batch channels *space"]
Gate = Float[Tensor, "batch channels *#space"]


class Merge(nn.Module, ABC):
    """Merges a shortcut with a residual branch, which training may drop.

    `fl.nn.probes` looks for this class: it measures branches before they are dropped or weighted.

    Args:
        rate: share of examples for which training drops the branch.
        rescale: as `fl.nn.layers.noise.StochasticDepth`.
    """

    def __init__(self, rate: float = 0.0, rescale: bool = True):
        super().__init__()
        self.drop = StochasticDepth(rate, rescale)

    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal."""
        return self.join(skip, self.drop(branch))

    @abstractmethod
    def join(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal, given the branch after some examples of it were dropped."""


class Add(Merge):
    """skip + branch (arXiv 1512.03385, equation 1)."""

    def join(self, skip: Signal, branch: Signal) -> Signal:
        """Return the sum."""
        return skip + branch


class ScaledAdd(Merge):
    """skip + α·g·branch (arXiv 2101.08692, section 3).

    Dropped branches are not rescaled, as in its authors' code.

    Args:
        alpha: α, a constant.
        rate: as `Merge`.
        skip_gain: whether g is a learnable scalar that starts at 0 (SkipInit, arXiv 2002.10444,
            as in the code of arXiv 2102.06171), so that a block starts as its shortcut; else
            g = 1.
    """

    def __init__(self, alpha: float, rate: float = 0.0, skip_gain: bool = False):
        super().__init__(rate, rescale=False)
        self.alpha = alpha
        self.gain = nn.Parameter(torch.zeros(())) if skip_gain else None

    def join(self, skip: Signal, branch: Signal) -> Signal:
        """Return the weighted sum."""
        if self.gain is not None:
            branch = branch * self.gain
        return skip + self.alpha * branch


class MagnitudePreserving(Merge):
    """((1 - w)·skip + w·branch) / √((1 - w)² + w²), w = 1/2: the mean, scaled by √2.

    Of two independent inputs with second moment 1 the result has second moment 1, which a sum
    doubles. Source: arXiv 2312.02696, equation 88, as used for self-normalizing EfficientNets
    (Dewyse, JKU Linz, 2025; code MT_Normalizer_free_Neural_Nets, `mp_sum`).
    """

    WEIGHT = 0.5

    def join(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal."""
        w = self.WEIGHT
        return ((1 - w) * skip + w * branch) * ((1 - w) ** 2 + w**2) ** -0.5


def product(x: Signal, gate: Gate) -> Signal:
    """Return x·s for a gate s in (0, 1) that broadcasts over space (arXiv 1709.01507, eq. 4)."""
    return x * gate


def doubled_product(x: Signal, gate: Gate) -> Signal:
    """Return x·2s for a gate s: 2 makes up for the sigmoid, which is 1/2 at 0.

    Source: arXiv 2102.06171, section 4.1, and its authors' code.
    """
    return x * (2 * gate)


def magnitude_preserving_product(x: Signal, gate: Gate) -> Signal:
    """Return x·s / √((1 - s)² + s²): the magnitude-preserving sum of 0 and x with weight s.

    A gate of 1/2 leaves 0.7071·x, where x·s leaves 0.5·x. Source: code
    MT_Normalizer_free_Neural_Nets (Dewyse, JKU Linz, 2025), `se_scaled_mult`.
    """
    return x * (gate / torch.hypot(1 - gate, gate))
