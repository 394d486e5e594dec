"""A strategy: how a server makes one network of many, and how a client's step is corrected for it.

One class holds both halves, in plain NumPy and PyTorch. `Strategy` itself is FedAvg; a subclass
overrides what it does differently, and `strategies.serving.gathering` plays it. All parameters of a
network are one vector here. BatchNorm's statistics are not in it: they are averaged as `state.bn`
says.
"""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

Vector = Float[np.ndarray, " weights"]
"""All parameters of a network in one vector, in float64, as the server computes with them."""
Weights = Float[Tensor, "*lanes weights"]
"""All parameters of a network in one vector, or such a row for each of several clients."""
Row = Float[Tensor, " weights"]
"""All parameters of one network in one vector, or a number for each of them."""
Vectors = MutableMapping[str, Tensor]
"""Named vectors of a client, each with a number a weight, or such a row for each of several."""
Correction = Callable[[Weights, Weights, Weights, Vectors], None]
"""A client half: ``correct(gradient, weights, start, vectors)`` changes the gradient in place."""


@dataclass
class Reply:
    """What a client sent, as the server sees it."""

    partition: int
    examples: int
    """Examples that the client holds."""
    steps: int
    """Its optimizer steps."""
    loss: float
    """Mean loss in training."""
    vectors: Mapping[str, Vector]
    """The vectors that the strategy's `sent` names."""
    read: Callable[[], Vector] = field(repr=False)

    @cached_property
    def weights(self) -> Vector:
        """The client's parameters."""
        return self.read()


@dataclass
class Gathered:
    """What the server has gathered in a round."""

    number: int
    """Of the round, from 1."""
    clients: int
    """N: clients in the federation."""
    start: Vector
    """The parameters at the beginning of the round."""
    state: dict[str, Any]
    """What the server remembers from round to round: arrays and numbers by name, which the
    checkpoint carries. Numbers come back as arrays without dimensions."""
    mean: Vector = field(default_factory=lambda: np.empty(0))
    """The mean of the clients' parameters, weighted as `Strategy.weight` says; for `aggregate`."""
    count: int = 0
    """Replies that were used."""
    sums: dict[str, Vector] = field(default_factory=dict)
    """The sum over replies of each vector that the strategy's `sent` names."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Room for what `receive` leaves for `aggregate`; it is empty at the beginning of a round."""
    replies: list[Reply] = field(default_factory=list)
    """All replies in the order of partitions, where the strategy `holds` them; else empty."""


@dataclass
class Done:
    """What a client has done in a round, once its training is over."""

    start: Row
    """The parameters with which it began."""
    weights: Row
    """The parameters with which it ended."""
    vectors: Vectors
    """The client's vectors; what becomes of those in `kept` is what it has in its next round."""
    number: int
    """Of the round, from 1."""
    rate: float
    """The learning rate, `client.lr`."""
    examples: int
    """Examples that the client holds."""
    steps: int
    """Optimizer steps."""
    loss: float
    """Mean loss in training."""


@dataclass(frozen=True)
class Clients:
    """How the clients of an experiment train, as far as a strategy may have to know it."""

    asked: int
    """How many are asked in a round, ``sampling.clients``."""
    rounds: int
    """How many there are to be."""
    rate: Callable[[int], float]
    """Round -> its learning rate."""
    optimizer: str = "sgd"
    momentum: float = 0.0
    """Of SGD, and of no other optimizer."""
    nesterov: bool = False
    carried: bool = False
    """Whether a client's velocity is kept for its next round."""


class Strategy:
    """How models become one; as it stands, FedAvg: ``w = Σ n_k w_k / Σ n_k``.

    A subclass's own knobs are the parameters of its ``__init__``, with defaults, set as
    ``strategy.options.NAME``. Once made, a strategy does not change: what the server remembers
    belongs into ``state``, what a client remembers into ``vectors``. So it is resumed to the byte.
    """

    shared: ClassVar[tuple[str, ...]] = ()
    """Vectors in the server's state that requests carry to clients; zeros at first."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Vectors that each client keeps for itself from round to round; zeros at first."""
    sent: ClassVar[tuple[str, ...]] = ()
    """Vectors that replies carry to the server; `finish` returns them."""
    holds: ClassVar[bool] = False
    """Whether `aggregate` needs all replies of a round at once, as a median does. The server's
    memory then grows with the clients of a round; otherwise it does not."""

    def meet(self, clients: Clients) -> None:
        """Take note of how clients train, once, before the strategy is used: by default not at all.

        Raises:
            ValueError: the method is not for such clients; one line says why.
        """

    def choose(
        self,
        number: int,
        clients: Sequence[int],
        count: int,
        rng: np.random.Generator,
        state: dict[str, Any],
    ) -> Sequence[int]:
        """Return the clients of a round: by default `count` of them, drawn uniformly.

        Args:
            number: of the round.
            clients: partition ids that can be asked, sorted.
            count: how many are to be asked, ``sampling.clients``, or all of `clients` if fewer.
            rng: the generator of this round; the only randomness that is repeatable.
            state: what the server remembers.
        """
        return rng.choice(clients, count, replace=False).tolist()

    def weight(self, reply: Reply) -> float:
        """Return the weight of a reply in the mean: by default its number of examples."""
        return float(reply.examples)

    def receive(self, gathered: Gathered, reply: Reply) -> None:
        """Take note of a reply in ``gathered.notes``; called in the order of partitions."""

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next global parameters: by default the mean.

        It is not called in a round without usable replies.
        """
        return gathered.mean

    def correct(
        self, gradient: Weights, weights: Weights, start: Weights, vectors: Vectors
    ) -> None:
        """Change a client's gradient in place, before it is clipped: by default not at all.

        The tensors are of one client, or have a row for each of several clients that train
        together. So write what works on both: element by element, or with ``dim=-1``.

        Args:
            gradient: of the loss; change it in place.
            weights: the client's parameters as they are.
            start: the parameters at the beginning of the round.
            vectors: those of `shared` and `kept`, by name.
        """

    def finish(self, done: Done) -> Mapping[str, Tensor] | None:
        """Update a client's own vectors after its training, and return those of `sent`."""

    @property
    def is_mean(self) -> bool:
        """Whether the server half is the mean of a round's replies, and nothing else."""
        halves = ("choose", "weight", "receive", "aggregate")
        more = self.shared or self.sent or self.holds
        return not more and not any(overrides(self, name) for name in halves)

    def correction(self) -> Correction | None:
        """Return `correct`, or None where clients follow their own gradients."""
        return self.correct if overrides(self, "correct") else None

    def __setattr__(self, name: str, value: object) -> None:
        if "_sealed" in vars(self):
            raise AttributeError(
                f"{type(self).__name__}.{name} is set after the strategy was made, and would be "
                "lost on --resume; keep it in the server's state or in a client's vectors"
            )
        object.__setattr__(self, name, value)

    def seal(self) -> None:
        """Refuse changes from here on."""
        object.__setattr__(self, "_sealed", True)


def positive(**given: float | int) -> float:
    """Return the one number that is given by name, if it is above 0.

    Raises:
        ValueError: it is not, or is infinite.
    """
    ((name, value),) = given.items()
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value:g} should be a number above 0")
    return float(value)


def share(**given: float | int) -> float:
    """Return the one number that is given by name, if it is from 0 to below 1.

    Raises:
        ValueError: it is not.
    """
    ((name, value),) = given.items()
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value:g} should be a number from 0 to below 1")
    return float(value)


def overrides(strategy: Strategy, name: str) -> bool:
    """Return whether a strategy has a method of its own in the place of `Strategy`'s."""
    return getattr(type(strategy), name) is not getattr(Strategy, name)
