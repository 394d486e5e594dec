"""How a residual branch and its shortcut become one."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

Signal = Float[Tensor, "batch channels *space"]


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


class ScaledAdd(Merge):
    """skip + α·g·branch (arXiv 2101.08692, section 3).

    Args:
        alpha: α, a constant.
        drop: what becomes of the branch first, such as `fl.nn.noise.StochasticDepth`.
        skip_gain: whether g is a learnable scalar that starts at 0 (SkipInit, arXiv 2002.10444,
            as in the code of arXiv 2102.06171), so that a block starts as its shortcut; else
            g = 1.
    """

    def __init__(self, alpha: float, drop: nn.Module | None = None, skip_gain: bool = False):
        super().__init__()
        self.alpha = alpha
        self.drop = nn.Identity() if drop is None else drop
        self.gain = nn.Parameter(torch.zeros(())) if skip_gain else None

    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the weighted sum."""
        branch = self.drop(branch)
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

    def forward(self, skip: Signal, branch: Signal) -> Signal:
        """Return the merged signal."""
        w = self.WEIGHT
        return ((1 - w) * skip + w * branch) * ((1 - w) ** 2 + w**2) ** -0.5
