"""SGD and Adam on one vector of weights: the arithmetic of torch.optim without its start-up second.

Every step turns a gradient g into a direction d, and the caller moves the weights by -lr * d. A
round of micro-batches makes thousands of tiny steps, so what counts is the number of calls, not of
multiplications; on one vector a step is one to six calls, whatever the number of layers.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fl.config import Client

Vector = Float[Tensor, "*lanes weights"]
"""One vector of weights, or a row for each of several clients, whose steps are their own."""


class SGD:
    """Stochastic gradient descent with momentum m: v <- m v + g, d = v (as torch.optim.SGD).

    Args:
        momentum: m.
        like: the weights.
    """

    def __init__(self, momentum: float, like: Vector) -> None:
        self.momentum = momentum
        self.velocity = torch.zeros_like(like) if momentum else None

    def direction(self, gradient: Vector) -> Vector:
        """Return g, or with momentum the velocity; may hand the gradient's own memory back."""
        if self.velocity is None:
            return gradient
        return self.velocity.mul_(self.momentum).add_(gradient)

    def forget(self, lane: int) -> None:
        """Begin anew with one of the rows."""
        if self.velocity is not None:
            self.velocity[lane] = 0


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1): d = m̂ / (√v̂ + ε), β = (0.9, 0.999), ε = 1e-8.

    Args:
        like: the weights.
    """

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(self, like: Vector) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        # Powers of β are taken in double precision, whatever the weights have.
        self.steps = torch.zeros(*like.shape[:-1], 1, dtype=torch.float64, device=like.device)

    def direction(self, gradient: Vector) -> Vector:
        """Return the bias-corrected first moment over the root of the second."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.BETA1)
        self.square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
        wanted = ((1 - self.BETA2**self.steps) ** -0.5).to(gradient.dtype)
        root = self.square.sqrt().mul_(wanted).add_(self.EPS)
        return self.mean.div(root).mul_((1 / (1 - self.BETA1**self.steps)).to(gradient.dtype))

    def forget(self, lane: int) -> None:
        """Begin anew with one of the rows."""
        self.mean[lane], self.square[lane], self.steps[lane] = 0, 0, 0


Optimizer = SGD | Adam
"""Remembers what it needs between steps; made anew for every local round."""


def make(client: Client, like: Vector) -> Optimizer:
    """Return a fresh optimizer for weights as the knobs ask for it."""
    return SGD(client.momentum, like) if client.optimizer == "sgd" else Adam(like)
