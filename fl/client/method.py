"""The client half of an experiment's strategy: a client's vectors, and what it does with them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fl.client.local import Ownership
from fl.config import Experiment
from fl.data import Batch
from fl.messages import client_state, records
from fl.messages.strategy import strategy_of
from fl.training.parameters import FlatNetwork
from fl.training.step import MOMENTUM
from strategies.fedprox import MU, proximal
from strategies.strategy import Correction, Done, Strategy, overrides


@dataclass
class Begun:
    """A round of a client that has begun."""

    batches: Iterator[Batch]
    before: Tensor | None
    """As `fl.client.task.score`, before training."""
    own: Tensor | None
    """What the loss has to know of the client."""
    vectors: dict[str, Tensor] = field(default_factory=dict)
    """The strategy's."""
    noise: torch.Generator | None = None
    """Draws the noise on clipped gradients."""
    start: Tensor | None = None
    """The weights before training, where the strategy has something to do after it."""
    owned: Ownership | None = None
    """Which weights stay with the client; None: none."""


@dataclass(frozen=True)
class Method:
    """What a strategy asks of clients."""

    strategy: Strategy | None
    """None for one of Flower's, whose wishes are in its requests."""
    correct: Correction | None = None
    busy: bool = False
    """Whether clients have vectors, or something to do after their training."""
    asked_in_request: bool = False
    """Whether what clients do is said by each request."""
    carried: tuple[str, ...] = ()
    """Vectors that each client keeps whatever the strategy: its optimizer's."""

    @property
    def kept(self) -> tuple[str, ...]:
        """All vectors that each client keeps for itself."""
        return (*(self.strategy.kept if self.strategy else ()), *self.carried)

    @staticmethod
    def asked(config: ConfigRecord) -> Correction | None:
        """Return what a strategy of Flower's asks for: FedProx's pull, or None.

        Raises:
            ValueError: μ is no number.
        """
        mu = config.get(MU, 0.0)
        if not isinstance(mu, int | float):
            raise ValueError(f"{MU}={mu!r} in a message, expected a number")
        return proximal(float(mu)) if mu else None

    def begin(
        self, begun: Begun, network: FlatNetwork, request: records.Request, state: RecordDict
    ) -> None:
        """Give a client the vectors with which it begins a round.

        Raises:
            ValueError: the request or the client's state lacks one, or it has another shape.
        """
        shared = self.strategy.shared if self.strategy else ()
        own = client_state.remembered(state, client_state.VECTORS)
        found = {name: torch.tensor(array) for name, array in request.vectors.items()}
        if begun.owned:
            found = {name: begun.owned.whole(vector) for name, vector in found.items()}
        found |= {name: own.get(name, network.weights) for name in self.kept}
        if found.keys() != {*shared, *self.kept}:
            raise ValueError(f"the request's vectors are {sorted(request.vectors)}")
        for name, tensor in found.items():
            if tensor.shape != network.weights.shape:
                raise ValueError(f"{name} has {tuple(tensor.shape)} numbers, not one a weight")
            first = name in self.kept and name not in own
            begun.vectors[name] = torch.zeros_like(tensor) if first else tensor.to(network.weights)
        begun.start = network.weights.clone()

    @torch.inference_mode()  # as in training, whose tensors can only be changed in it
    def end(self, done: Done, state: RecordDict, owned: Ownership | None) -> dict[str, Tensor]:
        """Let the strategy finish a client's round; remember what is kept, return what is sent.

        What is sent has no numbers for weights that stay with the client.

        Raises:
            ValueError: what it returned or left is not as it said.
        """
        sent = dict((self.strategy.finish(done) if self.strategy else None) or {})
        wanted = self.strategy.sent if self.strategy else ()
        if sent.keys() != set(wanted):
            raise ValueError(f"finish returned {sorted(sent)}, expected {sorted(wanted)}")
        kept = {name: done.vectors[name] for name in self.kept}
        for name, vector in (*sent.items(), *kept.items()):
            if not isinstance(vector, Tensor) or vector.shape != done.weights.shape:
                raise ValueError(f"finish made no vector of {name}: expected a number a weight")
        client_state.remember(state, _on_cpu(kept, done.weights.dtype), client_state.VECTORS)
        sent = {name: owned.part(v) for name, v in sent.items()} if owned else sent
        return _on_cpu(sent, done.weights.dtype)


def _on_cpu(vectors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: vector.detach().to("cpu", dtype) for name, vector in vectors.items()}


@lru_cache(maxsize=4)
def method_of(knobs: Experiment) -> Method:
    """Return what an experiment's strategy asks of clients, the same object for equal ones."""
    strategy, carried = strategy_of(knobs), (MOMENTUM,) if knobs.client.carry_momentum else ()
    if strategy is None:
        return Method(None, busy=bool(carried), asked_in_request=True, carried=carried)
    busy = bool(strategy.shared or strategy.kept or carried or overrides(strategy, "finish"))
    return Method(strategy, strategy.correction(), busy, carried=carried)
