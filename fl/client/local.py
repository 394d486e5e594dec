"""What a client keeps for itself: where it begins with it, and what does not touch it.

This file is not on the path of the simplest round, in which a client keeps nothing.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from flwr.app import RecordDict
from torch import Tensor

from fl.config import Experiment
from fl.data import Form
from fl.messages import client_state, records
from fl.messages.local import staying
from fl.nn import statistics
from fl.training.parameters import FlatNetwork
from strategies.strategy import Correction, Vectors, Weights


class Ownership:
    """Which tensors of a network stay with a client, and which weights these are of its vector.

    Args:
        network: with all weights.
        kept: names of the tensors that stay.
    """

    def __init__(self, network: FlatNetwork, kept: frozenset[str]) -> None:
        self.kept = kept
        marked = torch.zeros_like(network.weights)
        for part in network.segments:
            if part.name in kept:
                part.of(marked).fill_(1)
        self.own = marked.nonzero()[:, 0]
        self.shared = (marked == 0).nonzero()[:, 0].cpu()
        self.size = len(marked)
        self._corrections: dict[Correction, Correction] = {}

    def load(
        self,
        network: FlatNetwork,
        untrained: Mapping[str, Tensor],
        request: records.Request,
        state: RecordDict,
    ) -> bool:
        """Make a network what a client has; return whether it has no statistics of its own yet.

        That is what the server sent, and what the client kept from its last round. In its first
        round it begins with what the request has of that, or else with what is made here.

        Args:
            network: is loaded.
            untrained: its state before any training.
            request: what the server asks.
            state: the client's, between rounds.
        """
        initial = {name: untrained[name] for name in self.kept} | dict(request.initial)
        own = client_state.remembered(state)
        network.load({**initial, **own, **request.network})
        return not own.keys() >= self.kept.intersection(statistics(network.module))

    def whole(self, vector: Tensor) -> Tensor:
        """Return a vector with a number for each shared weight with 0 for each of the others."""
        if not len(self.own) or vector.shape != self.shared.shape:
            return vector  # one of a wrong size is refused by whoever asked
        found = vector.new_zeros(self.size)
        found[self.shared] = vector
        return found

    def part(self, vector: Tensor) -> Tensor:
        """Return a vector's numbers for the shared weights."""
        return vector[self.shared.to(vector.device)] if len(self.own) else vector

    def only_shared(self, correct: Correction | None) -> Correction | None:
        """Return a correction that leaves the gradient of what stays with a client as it is.

        It is the same for equal corrections, so that their clients train together.
        """
        if correct is None or not len(self.own):
            return correct
        own = self.own

        def corrected(
            gradient: Weights, weights: Weights, start: Weights, vectors: Vectors
        ) -> None:
            before = gradient[..., own]
            correct(gradient, weights, start, vectors)
            gradient[..., own] = before

        return self._corrections.setdefault(correct, corrected)


@lru_cache(maxsize=2)
def ownership(knobs: Experiment, form: Form, network: FlatNetwork) -> Ownership:
    """Return what of an experiment's network stays with each client."""
    return Ownership(network, staying(knobs, network.module, form.classes))
