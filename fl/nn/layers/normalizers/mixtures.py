"""BatchNorms that train by the statistics that clients share, alone or mixed with the batch's."""

import torch
from torch import Tensor, nn

from fl.nn.layers.normalizers.batch_norm import MomentsNorm


class FederatedBatchNorm(MomentsNorm):
    """FBN: trains by the statistics that the round began with, and notes down the batches'.

    Training: y = w·(x - μ_g)/√(v_g + 1e-5) + b. μ_g and v_g are the running mean and variance as
    they were when the client's network was loaded (`hold_statistics`), so no gradient flows through
    them, and examples do not see each other. Meanwhile the running statistics move by a tenth
    towards each batch's, as in `BatchNorm`; the server makes the next round's of them.

    Source: arXiv 2405.14670, as the code of arXiv 2505.21877 has it; that code's clients take the
    plain mean of their batches' moments, and its server moves by a tenth towards them.

    Args:
        channels: as `BatchNorm`.
        affine: as `BatchNorm`.
    """

    held_mean: Tensor
    held_var: Tensor

    def __init__(self, channels: int, affine: bool = True):
        super().__init__(channels, affine)
        self.register_buffer("held_mean", self.running_mean.clone(), persistent=False)
        self.register_buffer("held_var", self.running_var.clone(), persistent=False)
        self.register_load_state_dict_post_hook(_hold)

    @torch.no_grad()
    def hold_statistics(self) -> None:
        """Let the running statistics be those that this round trains by."""
        if self.remembers:
            self.held_mean.copy_(self.running_mean)
            self.held_var.copy_(self.running_var)

    def forget_statistics(self) -> None:
        """Have no statistics from here on, and be a `BatchNorm`."""
        super().forget_statistics()
        del self.held_mean, self.held_var

    def adjusted(
        self, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the held moments, and scale and shift as they are."""
        return self.held_mean, self.held_var, weight, bias


class HybridBatchNorm(FederatedBatchNorm):
    """HBN: trains by a learned mixture of the shared statistics and the batch's.

    Training: y = w·(x - m)/√(v + 1e-5) + b with m = (1 - s)·μ_g + s·μ and v = (1 - s)·v_g + s·v_b.
    μ and v_b are the batch's mean and biased variance, μ_g and v_g are as in `FederatedBatchNorm`,
    and s = sigmoid(`mixture`) is learned for each channel, from 1/2 on. Gradients flow through the
    batch's moments and through s. With s = 1 this is `BatchNorm`, with s = 0 `FederatedBatchNorm`.

    Source: arXiv 2505.21877 and its code, where statistics are collected in passes of their own,
    as with `state.bn=recalibrate`, and each client keeps its s, as with `state.local=*.mixture`.

    Args:
        channels: as `BatchNorm`.
    """

    def __init__(self, channels: int):
        super().__init__(channels)
        self.mixture = nn.Parameter(torch.zeros(channels))

    def adjusted(
        self, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the mixed moments, and scale and shift as they are."""
        s = self.mixture.sigmoid()
        mixed_mean = (1 - s) * self.held_mean + s * mean
        return mixed_mean, (1 - s) * self.held_var + s * variance, weight, bias


def _hold(norm: nn.Module, _: object) -> None:
    assert isinstance(norm, FederatedBatchNorm)
    norm.hold_statistics()
