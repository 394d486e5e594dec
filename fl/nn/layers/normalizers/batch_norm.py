"""Batch normalization, also of batches some of whose examples only fill them up."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import wrap_torch_function


class Padded(NamedTuple):
    """What a batch holds whose first examples are real, and whose others fill it up."""

    real: Tensor
    """How many are real, from 1 up; a floating-point number of shape ()."""
    size: int
    """How many there are in all."""


class BatchNorm(nn.Module):
    """Batch normalization over one, two, three or no spatial dimensions.

    Training: y = weight·(x - μ)/√(v + 1e-5) + bias, with the batch's mean μ and biased variance
    v of a channel; the running mean and the running (unbiased) variance move by a tenth towards
    the batch's. Evaluation: the running statistics take the place of μ and v. The numbers are
    PyTorch's, without its integer counter, which has no meaningful average over clients.

    A training batch with one value a channel has no variance, and PyTorch refuses it. Clients
    with micro-batches meet it, so such a step is normalized by the running statistics, leaves
    them as they are, and is counted in `single_value_steps`. This rule is derived (ours).

    After `forget_statistics` there are no running statistics: evaluation, too, takes μ and v from
    the batch, and of one value a channel the bias alone is left.

    Within `fixed_statistics`, training uses the running statistics, too, and does not move them.
    Within `padded`, only real examples count in statistics, see `padded_batch_norm`.

    Source: arXiv 1502.03167, algorithms 1 and 2.

    Args:
        channels: channels C of the inputs (batch, C, *space).
        affine: whether there are weight and bias; without, they are 1 and 0.
    """

    momentum = 0.1
    eps = 1e-5
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.remembers = True
        self.fixed = False
        self.padded: Padded | None = None
        self.single_value_steps = 0

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return the normalized x; in training, move the running statistics."""
        by_batch = (self.training and not self.fixed) or not self.remembers
        if by_batch and self.padded:
            return self._normalize(x, self.padded)
        single = by_batch and x.numel() == x.shape[1]
        self.single_value_steps += single and self.training
        if single and not self.remembers:
            nothing = torch.zeros_like(x)
            return nothing if self.bias is None else nothing + self.bias.view(1, -1, *x.shape[2:])
        return F.batch_norm(
            x,
            self.running_mean if self.remembers else None,
            self.running_var if self.remembers else None,
            self.weight,
            self.bias,
            training=by_batch and not single,
            momentum=self.momentum,
            eps=self.eps,
        )

    def _normalize(self, x: Tensor, batch: Padded) -> Tensor:
        """Return x, normalized by the real examples of a batch; move the running statistics.

        Raises:
            ValueError: x does not have as many rows for each example.
        """
        rows, odd = divmod(len(x), batch.size)
        if odd or not rows:
            raise ValueError(f"BatchNorm was given {len(x)} rows for {batch.size} examples")
        self.single_value_steps += x.numel() == x.shape[1] * batch.size
        return self.normalize_by(x, batch.real if rows == 1 else batch.real * rows)

    def normalize_by(self, x: Tensor, real: Tensor) -> Tensor:
        """Return x, normalized by its first `real` rows; move the running statistics."""
        before = (self.running_mean, self.running_var) if self.remembers else ()
        weight = x.new_ones(x.shape[1]) if self.weight is None else self.weight
        bias = x.new_zeros(x.shape[1]) if self.bias is None else self.bias
        y, *found = self.normalized(x, weight, bias, real, *before)
        with torch.no_grad():
            for statistic, of_batch in zip(before, found, strict=False):
                statistic.add_(of_batch - statistic, alpha=self.momentum)
        return y

    def normalized(
        self, x: Tensor, weight: Tensor, bias: Tensor, real: Tensor, *running: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalized x, and the moments to move to, as `padded_batch_norm`."""
        return padded_batch_norm(x, weight, bias, real, *running, eps=self.eps)

    def hold_statistics(self) -> None:
        """Note that a round begins with the running statistics as they are, if that matters."""

    def forget_statistics(self) -> None:
        """Have no running statistics from here on."""
        self.remembers = False
        del self.running_mean, self.running_var


def _tensors(*tensors: Tensor, eps: float) -> tuple[Tensor, ...]:
    return tensors


@wrap_torch_function(_tensors)  # pyrefly: ignore
def padded_batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, real: Tensor, *running: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``w·(x - μ)/√(v + eps) + b`` for all rows of x, with μ and the unbiased v.

    μ and v are the mean and the biased variance of the first `real` rows. Of one value a channel
    there, they are the running statistics, as they are; where there are none, that value's result
    is b. Rows are combined by ``μ = Σ s_r·μ_r`` and ``v = Σ s_r·[v_r + (μ_r - μ)²]``, with
    ``s_r = 1/real`` for real rows and 0 for others.

    A `TorchFunctionMode` can replace this function. μ and v are for running statistics only: what
    replaces it may return them without their gradients.

    Shapes: x (rows, C, *space), real (), all others (C,).

    Args:
        x: rows.
        weight: w.
        bias: b.
        real: how many of the first rows count.
        running: the running mean and variance; or nothing.
        eps: added to the variance.
    """
    mean, variance, unbiased = padded_moments(x, real, *running)
    return scaled(x, mean, variance, weight, bias, eps), mean, unbiased


def padded_moments(x: Tensor, real: Tensor, *running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return μ, v and the unbiased v of the first `real` rows, as in `padded_batch_norm`."""
    values = x.reshape(*x.shape[:2], -1)
    shares = (torch.arange(len(x), device=x.device) < real).to(x.dtype) / real
    means = values.mean(2)
    variances = (values - means.unsqueeze(2)).square().mean(2)  # `var_mean` takes ten times as long
    mean = shares @ means
    variance = shares @ (variances + (means - mean).square())
    count = real * values.shape[2]
    if running and values.shape[2] == 1:
        mean = torch.where(count == 1, running[0], mean)
        variance = torch.where(count == 1, running[1], variance)
    return mean, variance, variance * (count / (count - 1).clamp_min(1))


def scaled(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Return ``weight·(x - mean)/√(variance + eps) + bias``; x (rows, C, *space), others (C,)."""
    slope = (variance + eps).rsqrt() * weight
    mean_of, slope_of, bias_of = (t.view(-1, *[1] * (x.ndim - 2)) for t in (mean, slope, bias))
    return torch.addcmul(bias_of, x - mean_of, slope_of)


class MomentsNorm(BatchNorm):
    """A BatchNorm that trains by more than the moments of the batch.

    In training, y = w·(x - m)/√(v + 1e-5) + b, with m, v, w and b as `adjusted` makes them of the
    batch's mean and biased variance, scale and shift. Evaluation, running statistics, padding,
    `fixed_statistics` and steps with one value a channel, for whose moments the running statistics
    stand in, are as in `BatchNorm`; after `forget_statistics` it is a `BatchNorm`.

    Args:
        channels: as `BatchNorm`.
        affine: as `BatchNorm`.
    """

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return the normalized x; in training, move the running statistics."""
        if not self.training or self.fixed or self.padded or not self.remembers:
            return super().forward(x)
        self.single_value_steps += x.numel() == x.shape[1]
        return self.normalize_by(x, x.new_tensor(len(x)))

    def normalized(
        self, x: Tensor, weight: Tensor, bias: Tensor, real: Tensor, *running: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalized x, and the moments to move to: the batch's."""
        if not running:
            return super().normalized(x, weight, bias, real)
        mean, variance, unbiased = padded_moments(x, real, *running)
        y = scaled(x, *self.adjusted(mean, variance, weight, bias), self.eps)
        return y, mean, unbiased

    @abstractmethod
    def adjusted(
        self, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return m, v, w and b, each of shape (C,), of the batch's moments, scale and shift."""


@contextmanager
def padded(norms: Sequence[BatchNorm], real: Tensor, size: int) -> Iterator[None]:
    """Let BatchNorm layers take their statistics from the first `real` of `size` examples.

    Each layer has to be given its examples in order, each as one row or more. While a layer's
    examples have one value a channel, each of its calls is counted in `single_value_steps`: whether
    there was one value a channel in all is for the caller, who knows how many examples are real.

    Args:
        norms: the layers.
        real: how many are real, of shape (); under vmap each lane has a number of its own.
        size: how many there are.
    """
    for norm in norms:
        norm.padded = Padded(real, size)
    try:
        yield
    finally:
        for norm in norms:
            norm.padded = None
