"""What a run would take of memory and disk, before its first round."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fl.config import Experiment
from fl.data import Form
from fl.fleet import batch_size
from fl.nn.layers.convs import StandardizedConv
from fl.reproducibility.machine import check_disk, check_fits, free_memory
from fl.training.parameters import FlatNetwork

_ROUND = 200
_CLIENT = 100
"""Bytes of a round's line in the journal, and of a client's, at the least."""
_WORKER = 10 * 2**20
"""Bytes that a process takes for itself, at the least."""
_FLOAT = 4
_LANE = 2
"""Vectors as long as a network that a lane takes, at the least: weights and gradients."""
_FILES = 3
"""Files with a network that a finished run holds: its last, its best and its checkpoint."""
_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, StandardizedConv)
_LAYER_VALUES = 8
"""Values that a layer keeps for each of its outputs, at the most: those of a block with branches,
normalizers and activations."""


def check_journal(knobs: Experiment, folder: Path) -> None:
    """Refuse a run whose journal the disk does not hold.

    Raises:
        ConfigError: it does not; the line has both numbers.
    """
    rounds = min(knobs.rounds, knobs.run.patience + 1 if knobs.run.patience else knobs.rounds)
    needed = rounds * (_ROUND + _CLIENT * knobs.sampling.clients)
    check_disk(f"rounds={knobs.rounds}: a journal of at least", needed, folder, "lower rounds")


def check_networks(knobs: Experiment, network: FlatNetwork, folder: Path) -> None:
    """Refuse a run whose checkpoint, best and last network the disk does not hold.

    Raises:
        ConfigError: it does not; the line has both numbers.
    """
    needed = _FILES * sum(tensor.nbytes for tensor in network.tensors().values())
    what = f"network.kind={knobs.network.kind}: checkpoint, best and last network of"
    check_disk(what, needed, folder, "take a smaller network")


def check_lanes(lanes: int, clients: int, workers: int, network: FlatNetwork) -> None:
    """Refuse more lanes than this machine's memory holds.

    Args:
        lanes: of a worker.
        clients: of a round, beyond which lanes stay empty.
        workers: processes.
        network: one lane's; a GPU says for itself what it holds.

    Raises:
        ConfigError: it does not hold them; the line has both numbers.
    """
    if network.weights.device.type == "cpu":
        what = f"vectorized.lanes={lanes}: weights and gradients of at least"
        at_once = min(lanes * workers, clients)
        check_fits(what, at_once * _LANE * network.weights.nbytes, "lower it")


def check_states(knobs: Experiment, network: FlatNetwork, kept: Sequence[str]) -> None:
    """Refuse a simulation whose clients keep more between rounds than memory holds.

    Args:
        knobs: the experiment.
        network: a client's.
        kept: names of the vectors, each as long as its weights, that a client keeps.

    Raises:
        ConfigError: it does not hold what the clients of one round keep.
    """
    clients = knobs.sampling.clients
    what = f"sampling.clients={clients}: what clients keep ({', '.join(kept)}), at least"
    check_fits(what, clients * len(kept) * network.weights.nbytes, "ask fewer")


def check_workers(workers: int | None) -> int | None:
    """Refuse more processes than this machine's memory holds; returns how many are asked for.

    Raises:
        ConfigError: there are more; the line has both numbers.
    """
    if workers:
        what = f"--workers={workers}: processes that take at least"
        check_fits(what, workers * _WORKER, "lower it")
    return workers


def check_batches(
    knobs: Experiment, network: FlatNetwork, form: Form, deal: Sequence[Tensor]
) -> None:
    """Refuse batches whose activations this machine's memory does not hold.

    A training step keeps the input of every layer with weights, for every example of its batch. So
    much is certain, and is told by the network itself, on one example. It is asked
    only where a bound by the network's weights and the batch is near to what there is.

    Args:
        knobs: the experiment.
        network: on a CPU; a GPU says for itself what it holds.
        form: of an example.
        deal: each client's examples.

    Raises:
        ConfigError: it does not; the line has both numbers.
    """
    sizes = (min(batch_size(knobs, n), len(part)) for n, part in enumerate(deal))
    most, values = max(sizes, default=0), torch.Size(form.shape).numel()
    widest = max((part.shape[0] for part in network.segments if part.shape), default=1)
    bound = _FLOAT * most * values * widest * len(network.segments) * _LAYER_VALUES
    if network.weights.device.type != "cpu" or network.foreign or bound <= free_memory() // 2:
        return
    check_fits(
        f"client.batch-size={knobs.client.batch_size}: a batch of {most:,} examples, whose layers "
        "keep at least",
        _FLOAT * most * _kept(network.module, form),
        "lower it",
    )


def _kept(module: nn.Module, form: Form) -> int:
    """Return the values that a training step keeps for an example: inputs of layers with weights.

    Each tensor is counted once, however many layers it goes to.
    """
    found: dict[int, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: found.update({id(inputs[0]): inputs[0]}))
        for layer in module.modules()
        if isinstance(layer, _WITH_WEIGHTS)
    ]
    was = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *form.shape))
    finally:
        module.train(was)
        for handle in handles:
            handle.remove()
    return sum(inputs.numel() for inputs in found.values())
