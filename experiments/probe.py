"""Measure activations and gradients per layer, of untrained networks and of finished runs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Batch, load
from fl.messages import records
from fl.nn import fixed_in, fixed_statistics
from fl.nn.criticality import Chain, look
from fl.reproducibility import determinism
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import EXPERIMENT, Journal
from fl.tasks import objective
from fl.training import parameters, signals


@dataclass(frozen=True)
class Probe:
    """One network, measured."""

    knobs: Experiment
    """Of the run; its seed drew the weights and the images."""
    run: str
    """The run's folder; empty for a network at initialization."""
    round: int
    """After which round: 0 is before any training."""
    images: int
    """Images in the batch."""
    layers: tuple[dict, ...]
    """The fields of `fl.nn.probes.Layer`, in order of execution."""
    chain: Chain
    """What stands in front of each layer, and its factors forward and backward."""


Subject = tuple[Experiment, Path | None]
"""What to measure: an experiment's network at initialization, or after a run's last round."""


def at_initialization(knobs: Experiment, recipes: Sequence[str], seeds: int) -> list[Subject]:
    """Return an experiment's networks before any training: each recipe, and as many seeds.

    Raises:
        ConfigError: there is no such recipe, or one does not fit the skeleton.
    """
    found: list[Subject] = [
        (knobs.replace({"recipe": recipe, "seed": knobs.seed + i, **_own_seed(knobs, i)}), None)
        for recipe in dict.fromkeys(recipes)
        for i in range(seeds)
    ]
    for chosen, _ in found[::seeds]:
        _network(chosen)
    return found


def _own_seed(knobs: Experiment, i: int) -> dict[str, int]:
    """Return the seed of the i-th network's initial weights where these have one of their own."""
    return {} if knobs.seed_init == "auto" else {"seed.init": knobs.seed_init + i}


def checkpoints(folders: Sequence[Path]) -> list[Subject]:
    """Return the runs in these folders, finished or not.

    Raises:
        ConfigError: a folder holds no run, or one without a finished round.
    """
    for folder in folders:
        if not (folder / EXPERIMENT).exists():
            raise ConfigError(f"{folder} holds no run (no {EXPERIMENT} in it); nothing to measure")
    return [(Experiment.from_flat(Journal(folder).header()["knobs"]), folder) for folder in folders]


def measure(subjects: Sequence[Subject], images: int) -> Iterator[Probe]:
    """Measure networks one after another, each on a batch of training images.

    The images are drawn as a run draws those on which it measures its shared network, so recipes
    with one seed get the same.

    Args:
        subjects: what to measure.
        images: images in the batch.

    Raises:
        ConfigError: there are not as many images, or a run has no checkpoint.
    """
    determinism.prepare_process()
    for knobs, folder in subjects:
        network, number = _network(knobs), 0
        if folder:
            number = _restore(network, folder)
        with fixed_statistics(network.module, fixed_in(knobs.state, number)):
            layers = signals.layers(network, batch(knobs, images), objective(knobs))
        fields = tuple(asdict(layer) for layer in layers)
        shape = load(knobs).form.shape
        chain = look(network.module, shape)
        yield Probe(knobs, str(folder or ""), number, images, fields, chain)


def _network(knobs: Experiment) -> parameters.FlatNetwork:
    return parameters.build_network(
        parameters.as_shared(knobs), torch_stream(knobs.seeds["init"], "init")
    )


def _restore(network: parameters.FlatNetwork, folder: Path) -> int:
    """Load a run's last network, and return the round after which it was."""
    checkpoint = Journal(folder).checkpoint()
    if checkpoint is None:
        raise ConfigError(f"{folder} has no checkpoint: no round of it is finished")
    try:
        network.load(records.unpack_network(records.pack_arrays(checkpoint.model)))
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None
    return checkpoint.round


def batch(knobs: Experiment, number: int) -> Batch:
    """Return inputs and labels of training images that are not kept for validation."""
    places = signals.training_places(knobs)
    if number > len(places):
        raise ConfigError(
            f"--images={number}: {knobs.data.name} has {len(places):,} training images"
        )
    measured = knobs.replace({"signals.images": number})
    return signals.draw(measured, load(knobs), places)
