"""What engines train, one client's round, and what it comes to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from fl.data import Batch
from fl.training.parameters import FlatNetwork
from fl.training.step import Vectors

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Outcome:
    """What a client's round came to."""

    steps: int
    """Optimizer steps; of several batches each, with `client.accumulate`."""
    examples: int
    """Images seen, counted once an epoch."""
    loss: float
    """Mean loss over all images seen, each before its step; no penalty in it. A cross-entropy is in
    nats."""
    gradient_norm: float
    """Mean over steps of the gradient's 2-norm, with the correction, before clipping."""
    gradient_norm_p10: float
    """Of these n norms in ascending order, that in place ⌊0.1 (n - 1)⌋, counted from 0."""
    gradient_norm_p50: float
    """That in place ⌊0.5 (n - 1)⌋."""
    gradient_norm_p90: float
    """That in place ⌊0.9 (n - 1)⌋."""
    clipped_share: float
    """Mean over steps of the share that `client.clip` scaled: 0 or 1 of a whole gradient, with AGC
    the share of units."""
    update_norm: float
    """‖w - w_start‖₂ over all parameters."""
    single_value_steps: int
    """Steps in which a BatchNorm layer saw one value a channel and used running statistics."""
    seconds: float
    """Wall time."""


@runtime_checkable
class Begun(Protocol):
    """A client's round that has begun: the network holds its start."""

    @property
    def batches(self) -> Iterator[Batch]:
        """The client's batches."""
        ...

    @property
    def vectors(self) -> Vectors:
        """The client's vectors, which the strategy's client half may change."""
        ...

    @property
    def own(self) -> Tensor | None:
        """What the loss has to know of the client, see `fl.tasks.Task.own`."""
        ...

    @property
    def noise(self) -> torch.Generator | None:
        """Draws the client's noise on clipped gradients; None where there is none."""
        ...


@runtime_checkable
class Task(Protocol[Result_co]):
    """What is asked of one client in a round, whatever engine trains it."""

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        ...

    def begin(self, network: FlatNetwork) -> Begun:
        """Load the client's start into a network."""
        ...

    def end(self, network: FlatNetwork, begun: Any, outcome: Outcome) -> Result_co:
        """Make a result of what the network has become."""
        ...

    def fail(self, error: Exception) -> Result_co:
        """Make a result of an error."""
        ...
