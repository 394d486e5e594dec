"""Normalization of the features that a classifier is given."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeatureNorm(nn.Module):
    """z -> √d·z/‖z‖₂, for each example's vector z of d features; z = 0 stays 0.

    ‖z‖ counts as 1e-12 at least. Source: arXiv 2308.09565, whose authors' code has it in front of
    the classifier.
    """

    def forward(self, z: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Return the vectors at the length √d."""
        return F.normalize(z, dim=1) * math.sqrt(z.shape[1])
