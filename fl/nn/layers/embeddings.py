"""Position embeddings for the tokens of a transformer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """x + E, with a learnable vector E for every position; `initialize` draws it.

    Source: arXiv 2010.11929, equation 1.

    Args:
        channels: channels of a token.
        tokens: positions in a sequence.
    """

    def __init__(self, channels: int, tokens: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, tokens))

    def forward(
        self, x: Float[Tensor, "batch channels tokens"]
    ) -> Float[Tensor, "batch channels tokens"]:
        """Return x + E."""
        return x + self.weight
