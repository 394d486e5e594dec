"""What a run's noise promises: an ε by Google's dp-accounting, or why there is none.

Two promises, each where its noise is. *Of clients* (`privacy.noise`): the model after the last
round would be about as likely if one client held other data. *Of examples*
(`privacy.per-example-noise`): what a client sends would be about as likely if one of its examples
were another. Both compare by replacing, so the number of clients and of examples may be known.
docs/design/privacy.md says why, and what either leaves out.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from fl.config import Experiment
from fl.config.components import is_component
from fl.tasks import objective
from fl.training.parameters import FlatNetwork

_MISSING = "dp-accounting is not installed; pip install 'fednf[privacy]'"
_ROUNDING = "noise is drawn in floating point, whose rounding is not accounted for"
_SEED = "nobody who sees the model knows the seed, which experiment.json tells (privacy.noise-from)"


@dataclass(frozen=True)
class Promise:
    """What the noise of a run promises to each client, or to each example."""

    of: Literal["clients", "examples"]
    epsilon: float | None
    """ε where it is known who took part in which round; None: there is none, and `why` says why."""
    epsilon_secret: float | None = None
    """ε where nobody knows who took part; None: that was not looked at."""
    delta: float | None = None
    """δ of both."""
    times: int = 0
    """How often one client's or example's data met the noise, at most."""
    assumes: tuple[str, ...] = ()
    """What has to be true, a sentence each."""
    why: str | None = None
    """The assumption that fails."""

    @property
    def text(self) -> str:
        """The promise in one line."""
        if self.epsilon is None:
            return f"no epsilon for {self.of}: {self.why}"
        secret = self.epsilon_secret
        lower = secret is not None and secret < self.epsilon
        more = f" ({secret:.4g} if nobody knows who was asked)" if lower else ""
        return f"epsilon {self.epsilon:.4g}{more} for {self.of} at delta {self.delta:.3g}"


def told(
    knobs: Experiment, network: FlatNetwork, lines: Sequence[dict], accounts: Sequence[dict]
) -> dict[str, list[dict]]:
    """Return what `result.json` says of a run's privacy; nothing where none was asked for.

    Args:
        knobs: of the run.
        network: what clients share.
        lines: those of `rounds.jsonl`.
        accounts: those of `clients.jsonl`.
    """
    promises = []
    if knobs.privacy.kind != "none":
        promises.append(_of_clients(knobs, network, lines, accounts))
    if knobs.privacy.per_example_clip:
        promises.append(_of_examples(knobs, accounts))
    return {"privacy": [asdict(p) | {"text": p.text} for p in promises]} if promises else {}


def composed_epsilon(noise: float, times: int, delta: float) -> float:
    """Return ε of the Gaussian mechanism, used some times: exact (Balle & Wang, arXiv 1805.06530).

    k Gaussians with noise σ are one with σ/√k, also where each is chosen by what the last ones said
    (arXiv 1905.02383, corollary 3.3).

    Args:
        noise: σ, in units of the sensitivity.
        times: k.
        delta: δ.

    Raises:
        ModuleNotFoundError: dp-accounting is not installed.
    """
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    return float(get_epsilon_gaussian(noise / math.sqrt(times), delta)) if times else 0.0


def sampled_epsilon(noise: float, asked: int, clients: int, rounds: int, delta: float) -> float:
    """Return ε where each round draws clients without replacement, and nobody knows whom.

    By Rényi accounting for replacing one (arXiv 1808.00087, theorem 27): an upper bound.

    Args:
        noise: σ, in units of the sensitivity.
        asked: clients of a round.
        clients: all of them.
        rounds: how many.
        delta: δ.

    Raises:
        ModuleNotFoundError: dp-accounting is not installed.
    """
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    step = dp_accounting.GaussianDpEvent(noise)
    event = dp_accounting.SampledWithoutReplacementDpEvent(clients, asked, step)
    return float(accountant.compose(event, rounds).get_epsilon(delta))


def _of_clients(
    knobs: Experiment, network: FlatNetwork, lines: Sequence[dict], accounts: Sequence[dict]
) -> Promise:
    """Return what the noisy mean of clipped updates promises to a client."""
    if why := _why_not_clients(knobs, network):
        return Promise("clients", None, why=why)
    privacy, clients = knobs.privacy, knobs.partition.clients
    averaged = [line for line in lines if line["round"] and line["replied"]]
    own = is_component(knobs.strategy.kind)  # may choose clients by what it has seen
    parts = Counter(account["partition"] for account in accounts)
    times = len(averaged) if own else max(parts.values(), default=0)
    delta = privacy.delta or clients**-1.1
    noise = privacy.noise / 2  # replacing one update moves the sum of updates by 2C, not by C
    try:
        epsilon, secret = composed_epsilon(noise, times, delta), None
        always = all(line["devices"] == clients for line in averaged)
        if always and not own and knobs.fleet.availability == 1:
            asked, drawn = knobs.sampling.clients, clients - knobs.partition.unseen_clients
            secret = min(epsilon, sampled_epsilon(noise, asked, drawn, len(averaged), delta))
    except ModuleNotFoundError:
        return Promise("clients", None, why=_MISSING)
    of = "all rounds" if own else f"{times} of {len(averaged)} rounds"
    assumes = (
        "neighbours differ in all that one client holds, and in nothing else",
        f"a client took part in {of} at most",
        "whether a client's reply is used does not depend on what it holds",
        "it is said of the model alone: the figures of rounds.jsonl, clients.jsonl and "
        "result.json, and the mean and deviation by which inputs are standardized, have no noise",
        "the server is trusted: it adds the noise, and sees updates without it",
    )
    return Promise("clients", epsilon, secret, delta, times, assumes + _of_noise(knobs))


def _why_not_clients(knobs: Experiment, network: FlatNetwork) -> str | None:
    """Return the assumption that a run with `privacy.kind` breaks; None where all hold."""
    if not knobs.privacy.noise:
        return "privacy.noise=0 adds no noise"
    bare = sorted(network.tensors().keys() - {part.name for part in network.segments})
    if bare:
        return (
            f"{len(bare)} tensors such as {bare[0]} are averaged without noise; take a recipe "
            "without BatchNorm, or state.bn=local or drop"
        )
    if knobs.strategy.max_norm:
        return (
            "strategy.max-norm refuses updates by what they are, so that the number of replies "
            "tells of them; set it to 0, since updates are clipped"
        )
    if knobs.fleet.deadline:
        return "with fleet.deadline the number of a client's examples decides whether it replies"
    return None


def _of_examples(knobs: Experiment, accounts: Sequence[dict]) -> Promise:
    """Return what the noise on clipped gradients promises to an example, at its own client.

    A pass over a client's examples takes each in one batch, so an example meets the noise once an
    epoch; batches without it are functions of what was noisy before. No amplification by sampling
    is claimed: batches are a shuffled pass, and not drawn anew for each step.
    """
    if why := _why_not_examples(knobs):
        return Promise("examples", None, why=why)
    privacy = knobs.privacy
    epochs: Counter[int] = Counter()
    for account in accounts:
        epochs[account["partition"]] += account["epochs"]
    times = max(epochs.values(), default=0)
    held = sum({account["partition"]: account["held"] for account in accounts}.values())
    delta = privacy.delta or max(held, 2) ** -1.1
    try:
        epsilon = composed_epsilon(privacy.per_example_noise / 2, times, delta)
    except ModuleNotFoundError:
        return Promise("examples", None, why=_MISSING)
    assumes = (
        "neighbours differ in one example of one client, and in nothing else",
        f"a client passed over its examples {times} times at most",
        "it is said of the updates that were used: the figures beside them, and the mean and "
        "deviation by which inputs are standardized, have no noise",
        "each client is trusted with its own examples, and nobody else is",
    )
    return Promise("examples", epsilon, None, delta, times, assumes + _of_noise(knobs))


def _why_not_examples(knobs: Experiment) -> str | None:
    """Return the assumption that per-example clipping breaks; None where all hold."""
    if not knobs.privacy.per_example_noise:
        return "privacy.per-example-noise=0 adds no noise"
    if objective(knobs).own is not None:
        return "the loss of each example knows what else its client holds (task.*)"
    if is_component(knobs.strategy.kind):
        return "a strategy of your own may use losses, which have no noise"
    return None


def _of_noise(knobs: Experiment) -> tuple[str, ...]:
    return (_ROUNDING, _SEED) if knobs.privacy.noise_from == "seed" else (_ROUNDING,)
