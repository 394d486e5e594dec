"""SGD and Adam on one vector of weights: the arithmetic of torch.optim without its start-up second.

Every step turns a gradient g into a direction d, and the caller moves the weights by -lr * d. A
round of micro-batches makes thousands of tiny steps, so what counts is the number of calls, not of
multiplications; on one vector a step is one to six calls, whatever the number of layers.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fl.config import Client

Vector = Float[Tensor, " weights"]


class SGD:
    """Stochastic gradient descent with momentum m: v <- m v + g, d = v (as torch.optim.SGD)."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.velocity: Tensor | None = None

    def direction(self, gradient: Vector) -> Vector:
        """Return g, or with momentum the velocity; may hand the gradient's own memory back."""
        if self.momentum == 0:
            return gradient
        if self.velocity is None:
            self.velocity = gradient.clone()
        else:
            self.velocity.mul_(self.momentum).add_(gradient)
        return self.velocity


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1): d = m̂ / (√v̂ + ε), β = (0.9, 0.999), ε = 1e-8."""

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(self) -> None:
        self.steps = 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    def direction(self, gradient: Vector) -> Vector:
        """Return the bias-corrected first moment over the root of the second."""
        if self.mean is None or self.square is None:
            self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.BETA1)
        self.square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
        root = self.square.sqrt().mul_((1 - self.BETA2**self.steps) ** -0.5).add_(self.EPS)
        return self.mean.div(root).mul_(1 / (1 - self.BETA1**self.steps))


Optimizer = SGD | Adam
"""Remembers what it needs between steps; made anew for every local round."""


def make(client: Client) -> Optimizer:
    """Return a fresh optimizer as the knobs ask for it."""
    return SGD(client.momentum) if client.optimizer == "sgd" else Adam()
