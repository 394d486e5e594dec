"""Unequal devices: what each can do in a round, as a pure function of (seed, round, client).

Every method of a comparison meets the same fleet. Server and client work the schedule out by
themselves, so nothing about it travels. Seconds here are simulated, never measured.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import numpy as np

from fl.config import Client, Experiment, parse_schedule
from fl.config.faults import within
from fl.config.fleet import lognormal_speeds, memory_tiers
from fl.reproducibility.seeds import Step, stream

DROPPED_OUT = "fleet: dropped out"
LATE = "fleet: missed the deadline"
STRAGGLED = "fleet: did fewer epochs than asked, and fleet.partial is drop"
Batch = TypeVar("Batch")
LOST = (DROPPED_OUT, LATE, STRAGGLED)
LOST_REPLY = "faults: its reply was lost"


@dataclass(frozen=True)
class Work:
    """What a device does in one round."""

    batch_size: int
    """Images at a time, by the device's memory."""
    epochs: int
    """Passes over its images, of which `client.steps` may end the last one early."""
    seconds: float | None
    """Simulated seconds of computing; None where `fleet.speeds` is none."""
    lost: str | None
    """Why nothing of it reaches the next network; None where it replies."""
    fault: str | None = None
    """What it does wrong, see `fault`; None where it does nothing wrong."""
    limit: int = 0
    """The step after which it stops, with `client.steps`; 0: it ends its last epoch."""
    accumulate: int = 1
    """Batches a step."""

    @property
    def images_a_step(self) -> int:
        """Images of a step; the last step of an epoch may have fewer."""
        return self.batch_size * self.accumulate

    def steps(self, images: int) -> int:
        """Return the steps that so many images make, the last of each epoch maybe smaller."""
        return self.limit or self.epochs * -(-images // self.images_a_step)

    def cut(self, batches: Iterator[Batch], images: int) -> Iterator[Batch]:
        """Return the batches of these steps, of all that follow one another."""
        return islice(batches, self.steps(images))

    def examples(self, images: int) -> int:
        """Return how many images these steps see, each as often as it is seen."""
        if not self.limit:
            return self.epochs * images
        whole, more = divmod(self.limit, -(-images // self.images_a_step))
        return whole * images + more * self.images_a_step


def work(knobs: Experiment, client: int, number: int, images: int) -> Work:
    """Return what a client does in a round.

    * Stragglers (arXiv 1812.06127, section 5.2): with probability `fleet.stragglers` a client means
      to do e ~ U{1, …, E} epochs, otherwise all E of `client.epochs`. Each client draws for itself
      (ours); in the paper's code an exact share of the sampled clients straggles.
    * Deadline (ours): an epoch takes images / speed seconds, and only whole epochs that end before
      `fleet.deadline` are done. A client that fits in none is lost.
    * Partial work: with `fleet.partial=drop` a client is lost, too, that did fewer than E epochs,
      as under FedAvg in that paper; with `keep` its work counts, as under FedProx there.
    * Faults (ours): by `faults.*`, see `fault`; a `lost` reply is lost as one that drops out.
    * Steps (ours): with `client.steps`, steps take the place of epochs in all of this. Each takes
      as long as an epoch over the steps of one.
    * Dropout (ours): with probability `fleet.dropout` a client is lost whatever it did.

    Args:
        knobs: the experiment.
        client: partition id.
        number: the round, from 1.
        images: how many images the client trains on.
    """
    fleet, client_does = knobs.fleet, knobs.client
    asked, size = client_does.steps or client_does.epochs, batch_size(knobs, client)
    an_epoch = -(-images // (size * client_does.accumulate)) if client_does.steps else 1
    wrong = None if knobs.faults.kind == "none" else fault(knobs, client, number)
    meant, drops = _luck(knobs, client, number)
    pace = speed(knobs, client)
    in_time = fleet.deadline * an_epoch if pace and fleet.deadline else 0
    fits = math.floor(in_time * pace / images) if pace and in_time else meant
    done, dropping = min(meant, fits), fleet.partial == "drop"
    lost = None
    if drops:
        lost = DROPPED_OUT
    elif wrong == "lost":
        lost = LOST_REPLY
    elif done < 1 or (dropping and done < meant):
        lost = LATE
    elif dropping and done < asked:
        lost = STRAGGLED
    seconds = done * images / an_epoch / pace if pace else None
    limit = done if client_does.steps else 0
    return Work(size, -(-done // an_epoch), seconds, lost, wrong, limit, client_does.accumulate)


def fault(knobs: Experiment, client: int, number: int) -> str | None:
    """Return the kind of a client's fault in a round, by `faults.*`; None where it has none."""
    asked = knobs.faults
    if asked.kind == "none" or not within(number, asked.rounds):
        return None
    if asked.clients:
        return asked.kind if within(client, asked.clients) else None
    path = ("faults",) if asked.who == "same" else ("faults", "round", number)
    clients = knobs.partition.clients
    faulty = _drawn(knobs.seed, clients, *path)[: round(asked.share * clients)]
    return asked.kind if client in faulty else None


def _luck(knobs: Experiment, client: int, number: int) -> tuple[int, bool]:
    """Return how many epochs or steps a client means to do in a round, and whether it drops out."""
    fleet, asked = knobs.fleet, knobs.client.steps or knobs.client.epochs
    if not (fleet.stragglers or fleet.dropout):
        return asked, False  # a stream takes a while to begin
    rng = stream(knobs.seed, "fleet", "round", number, "client", client)
    straggles, drops = rng.random() < fleet.stragglers, rng.random() < fleet.dropout
    return int(rng.integers(1, asked + 1)) if straggles else asked, drops


def round_seconds(knobs: Experiment, works: Iterable[Work]) -> float | None:
    """Return a round's simulated length: until the last reply or, if one is lost, the deadline.

    Without a deadline the server does not wait for who is lost. None without `fleet.speeds`.
    """
    if lognormal_speeds(knobs.fleet.speeds) is None:
        return None
    works = list(works)
    if knobs.fleet.deadline and any(work.lost for work in works):
        return knobs.fleet.deadline
    return max((work.seconds or 0.0 for work in works if not work.lost), default=0.0)


def speed(knobs: Experiment, client: int) -> float | None:
    """Return a device's images a second: median · exp(σ·z), z ~ N(0, 1); None without speeds."""
    speeds = lognormal_speeds(knobs.fleet.speeds)
    if speeds is None:
        return None
    median, sigma = speeds
    z = stream(knobs.seed, "fleet", "speed", client).standard_normal()
    return median * math.exp(sigma * z)


def batch_size(knobs: Experiment, client: int) -> int:
    """Return a device's batch size: tiers of `fleet.memory` hold exact shares of all clients."""
    tiers = memory_tiers(knobs.fleet.memory)
    if not tiers:
        return knobs.client.batch_size
    clients = knobs.partition.clients
    place = (_ranks(knobs.seed, clients)[client] + 0.5) / clients
    reached = np.cumsum([share for _, share in tiers])
    return tiers[min(int(np.searchsorted(reached, place)), len(tiers) - 1)][0]


def available(knobs: Experiment, number: int) -> list[int]:
    """Return the clients, sorted, that can be asked in a round: none of the `unseen`.

    A client is there during the first `fleet.availability` of its day, which lasts `fleet.day`
    rounds and begins at a moment of its own: ``frac(round / day + phase) < availability``.
    """
    clients, fleet, never = range(knobs.partition.clients), knobs.fleet, unseen(knobs)
    if fleet.availability == 1:
        return [client for client in clients if client not in never]
    phases = stream(knobs.seed, "fleet", "phases").random(len(clients))
    there = np.flatnonzero((number / fleet.day + phases) % 1 < fleet.availability).tolist()
    return [client for client in there if client not in never]


def unseen(knobs: Experiment) -> frozenset[int]:
    """Return the clients that never take part, ``partition.unseen`` of all, drawn uniformly."""
    partition, seed = knobs.partition, knobs.seeds["sampling"]
    if not partition.unseen:
        return frozenset()
    count = partition.unseen_clients
    drawn = stream(seed, "unseen").choice(partition.clients, count, replace=False)
    return frozenset(drawn.tolist())


def rate(knobs: Experiment, number: int) -> float:
    """Return the learning rate of a round, ``lr · s(t) · min(1, t/(W + 1))``.

    The schedule s(t) is that of `client.lr-schedule`, and W is `client.warmup`.

    Args:
        knobs: the experiment, of T rounds.
        number: t, of the round, from 1.
    """
    client = knobs.client
    kind, pairs = parse_schedule(client.lr_schedule)
    factor = math.prod((f for begin, f in pairs if number >= begin), start=1.0)
    if kind == "exp":
        factor = pairs[0][1] ** (number - 1)
    elif kind == "cosine":
        factor = (1 + math.cos(math.pi * (number - 1) / knobs.rounds)) / 2
    return client.lr * factor * min(1.0, number / (client.warmup + 1))


def in_round(knobs: Experiment, number: int, work: Work) -> Client:
    """Return how a client trains in a round: `knobs.client` itself, where nothing changes.

    The learning rate is that of the round. Where gradients are accumulated, batches are cut into
    parts of what the client's memory holds.
    """
    changes: dict[str, float] = {}
    if (found := rate(knobs, number)) != knobs.client.lr:
        changes["lr"] = found
    if work.accumulate > 1:
        changes["batch_size"] = work.batch_size
    return knobs.client.model_copy(update=changes) if changes else knobs.client


@lru_cache(maxsize=8)
def _drawn(seed: int, clients: int, *path: Step) -> list[int]:
    """Return all clients in the order in which a growing share takes them."""
    return stream(seed, *path).permutation(clients).tolist()


@lru_cache(maxsize=8)
def _ranks(seed: int, clients: int) -> np.ndarray:
    return stream(seed, "fleet", "memory").permutation(clients)
