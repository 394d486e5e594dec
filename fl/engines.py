"""Who trains the clients of an experiment where one machine simulates them, and how."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from fl import flat, native
from fl.cohort import by_batch
from fl.config import Experiment
from fl.data import deal, load
from fl.fleet import batch_size
from fl.provenance import cores
from fl.seeds import torch_stream
from fl.settings import ConfigError, Value
from fl.widths import widths

_MOST_VALUES = 2_000_000
"""Weights from which arithmetic, not overhead, takes a step's time."""
_MOST_IMAGES, _MOST_TOGETHER = 32, 8
"""Images a batch up to which it is overhead, or our operators are faster; with BatchNorm, whose
batches can't be filled up, so that few of the last ones are passed together."""
_MOST_LANES = 16
"""In a process."""
_FEWEST_LANES = 3
"""Lanes from which what they share outweighs what they cost."""
_FEWEST_IMAGES = 25_000
"""Images in a run from which tracing pays: once a machine, one to four seconds a size of pass and
ten for our operators, for about half a millisecond less an image."""
_COMPILED_IMAGES = 100_000
"""Images in a run from which compiling pays: 15 to 120 seconds once a machine for a network and
size of pass, for half a millisecond to five less an image."""
_TOGETHER_BYTES = 256 * 2**20
"""What clients of one call may take in memory, each with a request, a start and a reply."""


@dataclass(frozen=True)
class Choice:
    """An engine, and why it is that one."""

    knobs: Experiment
    """The experiment with numbers in the place of `auto`."""
    workers: int
    """Processes; 1: this one."""
    at_once: int
    """How many clients' networks memory has room for."""
    why: str

    @property
    def told(self) -> dict[str, Value]:
        """What `experiment.json` says of it; its knobs are what a resumed run goes on with."""
        flat, keys = self.knobs.to_flat(), ("engine", "cohort.lanes", "cohort.level")
        chosen = {key: flat[key] for key in keys}
        return {**chosen, "workers": self.workers, "why": self.why}


def choose(knobs: Experiment, workers: int | None = 1) -> Choice:
    """Settle `engine`, `cohort.*` and the workers, by the experiment and the number of cores.

    Never by a clock: so a run that is repeated on one machine is trained by the same engine.

    Args:
        knobs: the experiment.
        workers: processes; None: a core each, if the run is long enough to start them.

    Raises:
        ConfigError: the network or the deal is impossible, or what a level takes is not here.
    """
    network = flat.network(knobs, torch_stream(knobs.seed, "init"))
    values, sampled = len(network.weights), knobs.sampling.clients
    if workers is None:
        one = network.weights.device.type != "cpu" or _images(knobs) < _FEWEST_IMAGES
        workers = 1 if one else min(cores(), sampled)
    lanes = knobs.cohort.lanes
    if lanes == "auto":
        lanes = _lanes(_typical_round(knobs), workers)
    room = _TOGETHER_BYTES // (12 * values)
    if why := _why_sequential(knobs, network, lanes, workers):
        alone = {"engine": "sequential", "cohort.lanes": 1, "cohort.level": "eager"}
        return Choice(knobs.replace(alone), workers, min(max(1, room), sampled), why)
    level = _level(knobs, network)
    at_once = min(max(lanes * workers, room), sampled)
    together = {"engine": "cohort", "cohort.lanes": lanes, "cohort.level": level}
    return Choice(knobs.replace(together), workers, at_once, f"{lanes} lanes, {level}")


def _why_sequential(
    knobs: Experiment, network: flat.FlatNetwork, lanes: int, workers: int
) -> str | None:
    """Return why clients are trained one after another; None where they are not."""
    if knobs.engine == "sequential":
        return "asked for"
    if knobs.network.drops:
        return "dropout draws from each client's own stream"
    if knobs.sampling.clients == 1:
        return "one client a round"
    if knobs.engine == "cohort":
        return None
    if knobs.sampling.clients <= workers:
        return "a worker for every client of a round"
    if knobs.client.batch_size > (_MOST_TOGETHER if by_batch(network) else _MOST_IMAGES):
        return f"batches of {knobs.client.batch_size} keep a core busy"
    if (values := len(network.weights)) > _MOST_VALUES:
        return f"{values:,} weights keep a core busy at any batch size"
    if lanes < _FEWEST_LANES:
        return "few clients train at a time, or few have as much to do as the largest"
    if (images := _images(knobs)) < _FEWEST_IMAGES * _sizes(knobs):
        return f"about {images:,.0f} images are a short run"
    return None


def _sizes(knobs: Experiment) -> int:
    """Return how many sizes of pass there can be, each of which is prepared by itself."""
    tiers = {batch_size(knobs, client) for client in range(knobs.partition.clients)}
    return sum(len(widths(knobs, size)) for size in tiers)


def _images(knobs: Experiment) -> float:
    """Return about how many images a run trains on, each as often as it does."""
    share = knobs.sampling.clients / knobs.partition.clients
    return len(load(knobs.data.name).train) * share * knobs.client.epochs * knobs.rounds


def _level(knobs: Experiment, network: flat.FlatNetwork) -> str:
    """Return how passes are run.

    Each size of batch is compiled by itself, and with BatchNorm every client's last one has its
    own.
    """
    level = knobs.cohort.level
    if level in ("eager", "traced"):
        return level
    reason = native.why_not()
    if level == "auto":
        if reason:
            return "traced"
        long = _images(knobs) >= _COMPILED_IMAGES * _sizes(knobs)
        sizes = by_batch(network) or knobs.fleet.tiers
        return "compiled" if long and not sizes else "native"
    if reason:
        raise ConfigError(f"cohort.level={level}: {reason}; or use cohort.level=traced")
    return level


def _typical_round(knobs: Experiment) -> list[int]:
    """Return the steps that clients of a round have: of all clients, in steps evenly through."""
    parts = deal(knobs)
    steps = sorted(-(-len(part) // batch_size(knobs, n)) for n, part in enumerate(parts))
    sampled = knobs.sampling.clients
    return [steps[(2 * n + 1) * len(steps) // (2 * sampled)] for n in range(sampled)]


def _lanes(steps: Sequence[int], workers: int) -> int:
    """Return with how many lanes a worker these clients are done first.

    A pass over K lanes is taken to cost as much as K + 1 steps of one client: its overhead is about
    a step's arithmetic in the networks that cohorts are for.
    """
    shared = longest_first(steps, workers)
    parts = [[steps[place] for place in part] for part in shared]
    most = min(_MOST_LANES, max(map(len, parts)))

    def cost(lanes: int) -> int:
        return (lanes + 1) * max(passes(part, lanes) for part in parts)

    return min(range(1, most + 1), key=cost)


def passes(steps: Sequence[int], lanes: int) -> int:
    """Return how many passes a cohort needs where whoever has most steps is begun first."""
    parts = longest_first(steps, lanes)
    return max(sum(steps[place] for place in part) for part in parts)


def longest_first(steps: Sequence[int], hands: int) -> list[list[int]]:
    """Deal clients, by their places: the largest first, each to whoever has least to do."""
    parts: list[list[int]] = [[] for _ in range(hands)]
    loads = [(0, hand) for hand in range(hands)]
    for place in sorted(range(len(steps)), key=lambda place: -steps[place]):
        load, hand = loads[0]
        parts[hand].append(place)
        heapq.heapreplace(loads, (load + steps[place], hand))
    return parts
