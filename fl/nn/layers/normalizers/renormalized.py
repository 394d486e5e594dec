"""Batch renormalization: the batch's moments, corrected towards the running ones."""

from torch import Tensor

from fl.nn.layers.normalizers.batch_norm import MomentsNorm


class BatchRenorm(MomentsNorm):
    """BatchNorm whose training output is corrected to be near that of evaluation.

    Training: y = w·[(x - μ)/σ_b·r + d] + b with the batch's mean μ and σ_b = √(variance + 1e-5),
    r = σ_b/σ, clipped to [1/`largest_r`, `largest_r`], and d = (μ - μ_r)/σ, clipped to
    [-`largest_d`, `largest_d`], where μ_r and σ = √(v_r + 1e-5) are of the running mean and
    variance before the step. No gradient flows through r and d. With r = 1 and d = 0 this is
    `BatchNorm`; without bounds, y is what evaluation would return.

    Source: arXiv 1702.03275, algorithm 1 and section 3. Its bounds grow from 1 and 0 to 3 and 5 in
    40,000 steps; ours are constant. It has a running deviation, we a running variance, which moves
    by a tenth as BatchNorm's, in the source by a hundredth.

    Args:
        channels: as `BatchNorm`.
        largest_r: from 1 up.
        largest_d: from 0 up.

    Raises:
        ValueError: a bound is too small.
    """

    def __init__(self, channels: int, largest_r: float = 3.0, largest_d: float = 5.0):
        super().__init__(channels)
        if not (largest_r >= 1 and largest_d >= 0):
            raise ValueError(
                f"largest_r={largest_r}, largest_d={largest_d}: expected 1 or more, and 0 or more"
            )
        self.largest_r, self.largest_d = largest_r, largest_d

    def adjusted(
        self, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the batch's moments, w·r and b + w·d."""
        inverse = (self.running_var + self.eps).rsqrt()
        r = (variance.detach() + self.eps).sqrt() * inverse
        r = r.clamp(1 / self.largest_r, self.largest_r)
        d = (mean.detach() - self.running_mean) * inverse
        return mean, variance, weight * r, bias + weight * d.clamp(-self.largest_d, self.largest_d)
