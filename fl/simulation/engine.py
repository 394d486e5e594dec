"""Who trains the clients of an experiment where one machine simulates them, and how."""

import multiprocessing
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fl.client.method import method_of
from fl.config import Experiment
from fl.config.parsing import ConfigError, Value
from fl.data import deal, load
from fl.fleet import batch_size
from fl.reproducibility.determinism import can_fork
from fl.reproducibility.provenance import cores
from fl.server.app import Prepared
from fl.simulation.schedule import cost, longest_first
from fl.tasks import objective
from fl.training import parameters
from fl.training.checks.estimate import check_lanes, check_states
from fl.vectorized import gpu_memory, operators, verification
from fl.vectorized.gradients import Examples
from fl.vectorized.padding import fewest_rows, padded_sizes


@dataclass(frozen=True)
class _Limits:
    """Up to where overhead, which lanes share, takes a step's time, and not arithmetic."""

    values: float
    """Weights of a network."""
    images: float
    """Images a batch; on a CPU, those up to which our operators are faster."""
    run: int
    """Images in a run from which tracing pays, for each size of pass."""
    overhead: int
    """Of a pass, in steps of one client."""
    fewer_pays: bool
    """Whether a pass over fewer lanes takes less time."""


_CPU = _Limits(values=2e6, images=32.0, run=25_000, overhead=1, fewer_pays=True)
"""Tracing takes, once a machine, one to four seconds a size of pass and six for our operators, for
about half a millisecond less an image. A pass's overhead is about the arithmetic of a step in the
networks that lanes are for."""
_GPU = _Limits(values=12e6, images=32.0, run=1_000, overhead=100, fewer_pays=False)
"""A step waits for the processor to launch its operators, 6 to 9 ms on an H100, and a recorded pass
over 8 lanes takes less, up to where that was looked at: twice as fast in all with 11 million
weights and 32 images, 40 times with 77,000 weights and one. Tracing takes one to seven seconds."""
_FORKED_RUN = 5_000
"""Images in a run from which processes pay that are forks, where clients train one by one."""
_MOST_LANES = 16
"""In a process on a CPU; up to here every number of lanes is looked at."""
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
        parameters, keys = self.knobs.to_flat(), ("engine", "vectorized.lanes", "vectorized.level")
        chosen = {key: parameters[key] for key in keys}
        return {**chosen, "workers": self.workers, "why": self.why}


def choose(prepared: Prepared, workers: int | None = 1) -> Choice:
    """Choose `engine`, `vectorized.*` and the workers, by the experiment and the number of cores.

    Never by a clock: so a run that is repeated on one machine is trained by the same engine.

    Args:
        prepared: the experiment, with its data and its network.
        workers: processes; None: a core each, if the run is long enough to start them. Forks, which
            start at once, are for shorter ones, too, where no result depends on their number.

    Raises:
        ConfigError: devices bring the data, what a level takes is not here, or memory does not
            hold the lanes or what clients keep.
    """
    knobs, network = prepared.knobs, prepared.network
    if network is None:
        load(knobs)  # which says why there are no data here
        raise AssertionError
    check_states(knobs, network, method_of(knobs).kept)
    values, sampled = len(network.weights), knobs.sampling.clients
    asked = workers
    if workers is None:
        one = _on_gpu(network) or _images(knobs) < _limits(network).run
        workers = 1 if one else min(cores(), sampled)
    held = _TOGETHER_BYTES // (12 * values)
    why = _why_alone(knobs) or _why_not_in_lanes(prepared)
    lanes = 1 if why else _asked_lanes(knobs, network, workers)
    if why := why or _why_sequential(knobs, network, lanes, workers):
        if asked is None and _images(knobs) >= _FORKED_RUN and _forks_pay(network):
            workers = min(cores(), sampled)
        alone = {"engine": "sequential", "vectorized.lanes": 1, "vectorized.level": "eager"}
        return Choice(knobs.replace(alone), workers, min(max(1, held), sampled), why)
    check_lanes(lanes, sampled, workers, network)
    level = _level(knobs, network)
    at_once = min(max(lanes * workers, held), sampled)
    together = {"engine": "vectorized", "vectorized.lanes": lanes, "vectorized.level": level}
    why = f"{lanes} lanes, {level}"
    if knobs.privacy.per_example_clip:
        why += "; gradients of single examples have no other level"
    return Choice(knobs.replace(together), workers, at_once, why)


def _forks_pay(network: parameters.FlatNetwork) -> bool:
    """Return whether workers would start at once, and this process is not itself one of several."""
    alone = multiprocessing.parent_process() is None
    alone &= threading.current_thread() is threading.main_thread()
    return alone and can_fork() and not _on_gpu(network)


def _why_alone(knobs: Experiment) -> str | None:
    """Return why there can't be lanes; None where there can."""
    if knobs.engine == "sequential":
        return "asked for"
    if knobs.network.drops:
        return "dropout draws from each client's own stream"
    if knobs.sampling.clients == 1:
        return "one client a round"
    return None


def _why_not_in_lanes(prepared: Prepared) -> str | None:
    """Return why lanes can't train a network that is not ours, after having tried.

    Raises:
        ConfigError: lanes are asked for.
    """
    knobs, network, dataset = prepared.knobs, prepared.network, prepared.dataset
    if network is None or dataset is None or not network.foreign:
        return None
    aim = objective(knobs)
    inputs, labels = dataset.inputs(dataset.train.images[:2]), dataset.train.labels[:2]
    told = aim.own(dataset.train.labels, len(dataset.classes)) if aim.own else None
    own = None if told is None else told.expand(2, *told.shape)
    inputs, labels = (t.expand(2, *t.shape).to(network.weights.device) for t in (inputs, labels))
    weights = torch.full(labels.shape[:2], 0.5, device=network.weights.device)
    examples = Examples(inputs, labels, weights, torch.full_like(weights[:, 0], 2), own)
    with network.alone():
        reason = verification.refusal(network, aim, examples)
    if reason and knobs.engine == "vectorized":
        raise ConfigError(f"engine=vectorized: {reason}; use engine=sequential or auto")
    return reason


def _why_sequential(
    knobs: Experiment, network: parameters.FlatNetwork, lanes: int, workers: int
) -> str | None:
    """Return why clients are trained one after another although there can be lanes."""
    if knobs.engine == "vectorized":
        return None
    if knobs.sampling.clients <= workers:
        return "a worker for every client of a round"
    limits = _limits(network)
    if knobs.client.batch_size > limits.images:
        return f"batches of {knobs.client.batch_size} keep a core busy"
    if (values := len(network.weights)) > limits.values:
        return f"{values:,} weights keep a core busy at any batch size"
    if lanes == 1:
        return "one client trains at a time in each process"
    if (images := _images(knobs)) < limits.run * _sizes(knobs):
        return f"about {images:,.0f} images are a short run"
    return None


def _on_gpu(network: parameters.FlatNetwork) -> bool:
    return network.weights.device.type == "cuda"


def _limits(network: parameters.FlatNetwork) -> _Limits:
    return _GPU if _on_gpu(network) else _CPU


def _asked_lanes(knobs: Experiment, network: parameters.FlatNetwork, workers: int) -> int:
    """Return the lanes of a worker that are asked for; for `auto`, those that are done first."""
    if knobs.vectorized.lanes != "auto":
        return knobs.vectorized.lanes
    most = _most_lanes(knobs, network, workers)
    return _lanes(_typical_round(knobs), workers, most, _limits(network))


def _most_lanes(knobs: Experiment, network: parameters.FlatNetwork, workers: int) -> int:
    """Return how many lanes a worker may have; on a GPU what its part of the memory holds.

    Of all the card has, not of what is free: else another program there would change results.
    """
    if not _on_gpu(network):
        return _MOST_LANES
    memory = torch.cuda.get_device_properties(network.weights.device).total_memory
    size, data = knobs.client.batch_size, load(knobs)
    passes, mean_loss = len(padded_sizes(knobs, size)), objective(knobs).mean
    first = data.train.labels[:1].to(network.weights.device)

    def loss(outputs: torch.Tensor) -> torch.Tensor:
        return mean_loss(outputs, first.expand(size, *first.shape[1:]))

    before = network.state()  # looking at a pass moves statistics
    memory //= workers * (size if knobs.privacy.per_example_clip else 1)  # rows of weights a lane
    lanes = gpu_memory.lanes_that_fit(network, data.form, size, passes, memory, loss)
    network.load(before)
    return lanes


def _sizes(knobs: Experiment) -> int:
    """Return how many padded sizes there can be, each of which is prepared by itself."""
    tiers = {batch_size(knobs, client) for client in range(knobs.partition.clients)}
    return sum(len(padded_sizes(knobs, size)) for size in tiers)


def _images(knobs: Experiment) -> float:
    """Return about how many images a run trains on, each as often as it does."""
    client, share = knobs.client, knobs.sampling.clients / knobs.partition.clients
    if client.steps:
        a_client = client.steps * client.accumulate * client.batch_size
        return float(knobs.sampling.clients * a_client * knobs.rounds)
    return len(load(knobs).train) * share * client.epochs * knobs.rounds


def _level(knobs: Experiment, network: parameters.FlatNetwork) -> str:
    """Return how passes are run; each size of batch is compiled by itself."""
    level = "eager" if knobs.privacy.per_example_clip else knobs.vectorized.level
    if level in ("eager", "traced"):
        return level
    if _on_gpu(network):
        if level == "auto":
            return "traced"
        raise ConfigError(
            f"vectorized.level={level}: its programs are for CPUs; on a GPU use "
            "vectorized.level=traced, which is replayed as a CUDA graph, or device=cpu"
        )
    reason = operators.unavailable_reason()
    if level == "auto":
        if reason:
            return "traced"
        long = _images(knobs) >= _COMPILED_IMAGES * _sizes(knobs)
        return "compiled" if long and not knobs.fleet.tiers else "native"
    if reason:
        raise ConfigError(f"vectorized.level={level}: {reason}; or use vectorized.level=traced")
    return level


def _typical_round(knobs: Experiment) -> list[int]:
    """Return the steps that clients of a round have: of all clients, in steps evenly through."""
    if knobs.client.steps:
        return [knobs.client.steps] * knobs.sampling.clients
    parts = deal(knobs)
    steps = sorted(-(-len(part) // batch_size(knobs, n)) for n, part in enumerate(parts))
    sampled = knobs.sampling.clients
    return [steps[(2 * n + 1) * len(steps) // (2 * sampled)] for n in range(sampled)]


def _lanes(steps: Sequence[int], workers: int, most: int, limits: _Limits) -> int:
    """Return with how many lanes a worker these clients are done first.

    A pass is taken to cost as much as k + overhead steps of one client, where k is the number of
    lanes that it is over. Of many, only numbers that clients with equally many steps would fill
    evenly are looked at. One lane is taken only where there can be no more: passes over one of
    several cost no more than those of a program for one.
    """
    shared = longest_first(steps, workers)
    parts = [[steps[place] for place in part] for part in shared]
    clients = max(map(len, parts))
    most = min(most, clients)
    evenly = {-(-clients // turn) for turn in range(1, clients + 1)}
    few = range(min(2, most), min(most, _MOST_LANES) + 1)

    def longest(lanes: int) -> int:
        def of_pass(busy: int) -> int:
            return (fewest_rows(lanes, busy) if limits.fewer_pays else lanes) + limits.overhead

        return max(cost(part, lanes, of_pass) for part in parts)

    return min(sorted({*few, most, *(n for n in evenly if n <= most)}), key=longest)
