"""What a step does with a gradient: correct, clip, decay, and move the weights.

On one network's vector of weights, or on a row for each of several clients at once.
"""

from collections.abc import Callable

import torch

from fl import clipping, optimizers
from fl.config import Client
from fl.flat import FlatNetwork, Vector

Correction = Callable[[Vector, Vector, Vector], None]
"""A strategy's client half: ``correct(gradient, weights, start)`` changes the gradient in place."""


class Update:
    """Moves weights by one step, given their gradient: w <- w - lr·d(clip(g + correction) + λw).

    Args:
        network: what the weights are of.
        client: learning rate, optimizer, clipping, weight decay.
        correct: the strategy's client half, or None.
        weights: the network's own, or a row for each of several clients.
    """

    def __init__(
        self,
        network: FlatNetwork,
        client: Client,
        correct: Correction | None,
        weights: Vector,
    ) -> None:
        self.weights = weights
        self.client, self.correct = client, correct
        self.norms = torch.zeros(weights.shape[:-1], device=weights.device)
        self.factors = network.rate_factors(client.activation_lr)
        self.clip = clipping.make(client, network, weights)
        self.optimizer = optimizers.make(client, weights)

    @torch.inference_mode()  # in which gradients of traced passes are made
    def __call__(self, gradient: Vector, start: Vector) -> None:
        """Correct, clip, decay, and step; the order of torch with the penalty in the loss.

        Args:
            gradient: of the shape of the weights; it is overwritten.
            start: the weights at the beginning of the round.
        """
        if self.correct is not None:
            self.correct(gradient, self.weights, start)
        self.norms.add_(self.clip(gradient))
        if self.client.weight_decay:
            gradient.add_(self.weights, alpha=self.client.weight_decay)
        direction = self.optimizer.direction(gradient)
        if self.factors is not None:
            direction = direction * self.factors
        self.weights.add_(direction, alpha=-self.client.lr)

    def forget(self, lane: int) -> None:
        """Begin anew with one of the rows."""
        self.norms[lane] = 0
        self.optimizer.forget(lane)
