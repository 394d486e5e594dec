"""Dropout and stochastic depth that draw from a given generator, not from torch's global one."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Noise(nn.Module, ABC):
    """Multiplies by 0 or a constant in training, and is the identity in evaluation.

    Args:
        rate: probability of a zero, in [0, 1).

    Raises:
        RuntimeError: training without a generator, see `seed_noise`.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    @property
    def p(self) -> float:
        """The rate, by the name that PyTorch's dropout has for it and networks ask for."""
        return self.rate

    @abstractmethod
    def mask_shape(self, x: Tensor) -> torch.Size | tuple[int, ...]:
        """Return the shape of the zeros and ones for an input."""

    @property
    def kept_scale(self) -> float:
        """The factor on values that are not zeroed."""
        return 1 / (1 - self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with zeros in it."""
        if not self.training or self.rate == 0:
            return x
        if self.generator is None:
            raise RuntimeError("call fl.nn.seed_noise before training with dropout")
        mask = torch.rand(self.mask_shape(x), generator=self.generator) >= self.rate
        return x * mask.to(x.device, x.dtype).mul_(self.kept_scale)


class Dropout(Noise):
    """Zeroes single values and divides the others by 1 - rate (Srivastava et al., 2014, 10).

    Args:
        rate: as `Noise`.
    """

    def mask_shape(self, x: Tensor) -> torch.Size:
        """Return the shape of x."""
        return x.shape


class ChannelDropout(Noise):
    """Zeroes whole channels and divides the others by 1 - rate (SpatialDropout of arXiv 1411.4280).

    Args:
        rate: as `Noise`.
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return one value a channel of each example."""
        return (*x.shape[:2], *(1,) * (x.ndim - 2))


class StochasticDepth(Noise):
    """Drops a residual branch for whole examples (arXiv 1603.09382, section 3).

    Args:
        rate: as `Noise`.
        rescale: whether surviving branches are divided by 1 - rate, as timm's EfficientNets do and
            Brock's NFNets don't.
    """

    def __init__(self, rate: float, rescale: bool = True):
        super().__init__(rate)
        self.rescale = rescale

    @property
    def kept_scale(self) -> float:
        """The factor on branches that are not dropped."""
        return super().kept_scale if self.rescale else 1.0

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return one value an example."""
        return (len(x), *(1,) * (x.ndim - 1))


def seed_noise(module: nn.Module, generator: torch.Generator) -> None:
    """Give all layers that drop something one generator, from which they draw in turn."""
    for layer in module.modules():
        if isinstance(layer, Noise):
            layer.generator = generator


def train_without_noise(module: nn.Module) -> None:
    """Put a network into training mode, except the layers that drop something."""
    module.train()
    for layer in module.modules():
        if isinstance(layer, Noise):
            layer.eval()
