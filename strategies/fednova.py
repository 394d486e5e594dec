"""FedNova (arXiv 2007.07481): clients that make unequally many steps count by what they are."""

from functools import lru_cache

from strategies.fedprox import FedProx
from strategies.strategy import Clients, Gathered, Reply, Vector


class FedNova(FedProx):
    """Normalized averaging: ``x <- x - (Σ p_i ‖a_i‖₁)·Σ p_i d_i`` with ``d_i = (x - y_i)/‖a_i‖₁``.

    Here p_i is a client's share of the examples, and a_i says by how much each gradient of its τ_i
    steps has moved it: ``x - y_i = η Σ_k a_ik g_ik``, see `normalizer`. Under FedAvg who makes more
    steps counts for more. Where all make equally many, this is FedAvg, or FedProx, bit for bit. The
    server reckons ‖a_i‖₁ from the steps of a reply, which are checked against the work asked for.

    With a proximal term the authors' code has Σ p_i τ_i in the place of Σ p_i ‖a_i‖₁. The paper has
    no formula for momentum together with a proximal term, for Adam, or for a velocity that is kept
    for the next round; so these are refused.

    Args:
        mu: μ of the proximal term in each client's loss, as FedProx's; the knob `strategy.mu`.
    """

    def __init__(self, mu: float = 0.0) -> None:
        super().__init__(mu)
        self.clients: Clients | None = None

    def meet(self, clients: Clients) -> None:
        """Take note of momentum and learning rates.

        Raises:
            ValueError: what a step does is in no formula of the paper, or ημ is 1 or more.
        """
        if clients.optimizer != "sgd":
            raise ValueError(
                f"it counts steps of SGD, and client.optimizer={clients.optimizer}; set "
                "client.optimizer=sgd"
            )
        if clients.carried:
            raise ValueError("it counts steps from rest; set client.carry-momentum=false")
        if clients.momentum and self.mu:
            raise ValueError(
                f"there is no formula for client.momentum={clients.momentum:g} together with "
                f"strategy.mu={self.mu:g}; set one of them to 0"
            )
        highest = max(map(clients.rate, range(1, clients.rounds + 1))) if self.mu else 0.0
        if highest * self.mu >= 1:
            raise ValueError(
                f"with a learning rate of {highest:g}, strategy.mu={self.mu:g} has to be below "
                f"{1 / highest:g}"
            )
        self.clients = clients

    def length(self, steps: int, number: int) -> float:
        """Return ‖a‖₁ of so many steps in a round."""
        if (clients := self.clients) is None:
            return float(steps)
        pull = clients.rate(number) * self.mu if self.mu else 0.0
        return normalizer(steps, clients.momentum, clients.nesterov, pull)

    def receive(self, gathered: Gathered, reply: Reply) -> None:
        """Sum how far ‖a_i‖₁ is from the first reply's, and what that changes in the mean."""
        notes, length = gathered.notes, self.length(reply.steps, gathered.number)
        first = notes.setdefault("first", length)
        notes["examples"] = notes.get("examples", 0.0) + reply.examples
        if length != first:
            moved = (first / length - 1) * (reply.weights - gathered.start)
            notes["moved"] = notes.get("moved", 0.0) + reply.examples * moved
            notes["longer"] = notes.get("longer", 0.0) + reply.examples * (length / first - 1)

    def aggregate(self, gathered: Gathered) -> Vector:
        """Return the next parameters.

        With a of the first reply, ``τ = Σ p_i ‖a_i‖₁ = a (1 + l)`` and ``a Σ p_i d_i = -(Δ + m)``,
        where Δ is the mean's move and l and m are what `receive` has summed up. Both are 0 where
        all ‖a_i‖₁ are equal, and the mean is left as it is.
        """
        notes, delta = gathered.notes, gathered.mean - gathered.start
        longer = notes.get("longer", 0.0) / notes["examples"]
        moved = notes.get("moved", 0.0) / notes["examples"]
        return gathered.mean + longer * delta + (1 + longer) * moved


@lru_cache(maxsize=1024)
def normalizer(
    steps: int, momentum: float = 0.0, nesterov: bool = False, pull: float = 0.0
) -> float:
    """Return ‖a‖₁: how far steps lead under a gradient of 1, in units of the learning rate.

    All of a are positive, so their sum is what a constant gradient comes to. It is τ for plain SGD,
    ``[τ - ρ(1 - ρ^τ)/(1 - ρ)]/(1 - ρ)`` with momentum ρ, and ``(1 - (1 - ημ)^τ)/(ημ)`` with a
    proximal term (arXiv 2007.07481). Nesterov's momentum is derived: as `client.nesterov` steps.

    Args:
        steps: τ.
        momentum: ρ, from 0 to below 1.
        nesterov: whether a step follows g + ρv in the place of v.
        pull: ημ, from 0 to below 1; with momentum 0.
    """
    moved = velocity = 0.0
    for _ in range(steps):
        gradient = 1 - pull * moved
        velocity = momentum * velocity + gradient
        moved += gradient + momentum * velocity if nesterov else velocity
    return moved
