"""A worker's part in evaluating the server's network: some of the batches of its images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from flwr.app import ArrayRecord, RecordDict

from fl.client.task import network_of
from fl.config import Experiment
from fl.config.parsing import Value
from fl.data import load
from fl.messages import records, run_config
from fl.nn import resolve_auto
from fl.server.watching.evaluation import splits
from fl.simulation.grid import native, quickly
from fl.tasks import objective
from fl.tasks.metrics import Part
from fl.training.loop import Evaluation
from fl.training.parameters import as_shared
from fl.vectorized.operators import unavailable_reason


@dataclass(frozen=True)
class Told:
    """What all workers are told before they get chunks of clients and pieces of an evaluation."""

    shared: RecordDict = field(default_factory=RecordDict)
    """The content of the round's requests."""
    model: ArrayRecord | None = None
    """The network that pieces are of; None: there are no pieces."""
    run_config: Mapping[str, Value] = field(default_factory=dict)
    """The experiment of that network."""
    splits: Sequence[str] = ()
    """What it is scored on."""
    noted: bool = False
    """Whether workers tell when they were at what."""


def told_of(
    shared: RecordDict,
    evaluation: Evaluation | None,
    run_config: Mapping[str, Value],
    noted: bool,
) -> Told:
    """Return what to tell workers of a round's requests, and of a network that they evaluate.

    That is nearly always the network that clients start from. Then it is sent once.
    """
    if evaluation is None:
        return Told(shared, noted=noted)
    sent = shared.get(records.ARRAYS, {})
    model = records.pack_arrays(evaluation.model)
    same = {name: sent[name] if sent.get(name) == model[name] else model[name] for name in model}
    return Told(shared, ArrayRecord(same), run_config, tuple(evaluation.splits), noted)


def evaluate_piece(piece: range, told: Told) -> list[Part]:
    """Return what the batches of these numbers come to."""
    assert told.model is not None
    knobs, plain = _prepared(json.dumps(dict(told.run_config)))
    chosen = {name: plain.splits[name] for name in told.splits}
    evaluation = replace(plain, model=records.unpack_arrays(told.model), splits=chosen)
    with quickly(knobs):
        parts = evaluation.parts(piece)
        return [part._replace(sums=[sums.cpu() for sums in part.sums]) for part in parts]


@lru_cache(maxsize=1)
def _prepared(text: str) -> tuple[Experiment, Evaluation]:
    """Return an experiment, and the evaluation of its network, which is still without a model."""
    knobs = resolve_auto(run_config.experiment(json.loads(text)))
    dataset = load(knobs)
    network = network_of(as_shared(knobs), dataset.form)[0]
    if native(knobs):
        unavailable_reason()  # which makes the operators ready
    return knobs, Evaluation(network, dataset, objective(knobs), splits(knobs, dataset), {})
