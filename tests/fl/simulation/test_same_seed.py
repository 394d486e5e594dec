"""Same seed, same bytes: what a run computes depends on its knobs and on nothing else."""

import random

import numpy as np
import pytest
import torch

from fl.config import Experiment
from fl.data import deal, validation
from fl.nn import find
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.training.parameters import build_network
from tests.conftest import TINY
from tests.smallest import PAIRS, SMALLEST

QUICK = {"partition.kind": "iid", "partition.clients": 100, "recipe": "batchnorm"}
"""50 images a client; a recipe with running statistics, which could leak from run to run."""


def model_of(knobs, folder) -> str:
    return run(knobs, Journal(folder))["model_sha256"]


def test_the_same_seed_gives_the_same_model_whatever_ran_before_and_another_seed_another(
    tiny, tmp_path
):
    first = model_of(tiny(QUICK), tmp_path / "first")
    seed = model_of(tiny({**QUICK, "seed": 2}), tmp_path / "seed")
    recipe = model_of(tiny({**QUICK, "recipe": "salunet"}), tmp_path / "recipe")
    assert len({first, seed, recipe}) == 3
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002, the global generator is what must not matter
    torch.manual_seed(5)
    assert model_of(tiny(QUICK), tmp_path / "again") == first
    assert torch.initial_seed() == 5


@pytest.mark.parametrize(
    ("flat", "matters"),
    [
        ({"run.dir": "/elsewhere", "run.resume": True}, False),
        ({"rounds": 3}, True),
        ({"client.lr": 0.04}, True),
        ({"partition.clients": 99}, True),
        ({"sampling.clients": 3}, True),
        ({"network.init": "lecun"}, True),
    ],
)
def test_the_model_depends_on_every_knob_but_on_where_it_is_written(tiny, tmp_path, flat, matters):
    reference = model_of(tiny(QUICK), tmp_path / "reference")
    assert (model_of(tiny({**QUICK, **flat}), tmp_path / "other") != reference) == matters


def drawn(flat, folder) -> dict[str, object]:
    """Run an experiment of a round, and return what is drawn for it, part by part."""
    few = {**QUICK, "partition.clients": 20, "sampling.clients": 15, "rounds": 1}
    knobs = Experiment.from_flat({**TINY, **few, "data.validation": 0.5, **flat})
    journal = Journal(folder)
    run(knobs, journal)
    losses = {line["partition"]: line["loss"] for line in journal.clients()}
    network = build_network(knobs, torch_stream(knobs.seeds["init"], "init"))
    return {
        "deal": [[part.tolist() for part in deal(knobs)], validation(knobs).tolist()],
        "init": network.weights.tolist(),
        "sampling": sorted(losses),
        "losses": losses,
    }


@pytest.mark.slow
def test_each_seed_of_its_own_governs_its_part_and_no_other(tmp_path):
    """Losses say the rest: a client of both runs has the same where nothing it meets differs."""
    one = drawn({}, tmp_path / "one")
    for part in ("deal", "init", "sampling", "order"):
        other = drawn({f"seed.{part}": 9}, tmp_path / part)
        changed = {key for key in ("deal", "init", "sampling") if one[key] != other[key]}
        assert changed == {part} - {"order"}
        both = one["losses"].keys() & other["losses"].keys()
        assert len(both) > 5
        assert {one["losses"][c] == other["losses"][c] for c in both} == {part == "sampling"}
    four = {f"seed.{part}": 1 for part in ("deal", "init", "sampling", "order")}
    assert drawn({**four, "seed": 5}, tmp_path / "four") == one, "without a fleet that is all"


@pytest.mark.slow
def test_the_noise_of_clients_is_a_function_of_the_seed(tiny, tmp_path):
    network = {"network.kind": "efficientnet", "network.depth": 8, "rounds": 1}
    noises = ({}, {"network.dropout": 0.2}, {"network.stochastic-depth": 0.2})
    first, again = (
        [model_of(tiny({**QUICK, **network, **n}), tmp_path / f"{k}{i}") for i, n in enumerate(ns)]
        for k, ns in (("first", noises), ("again", noises[1:]))
    )
    assert again == first[1:]
    assert len(set(first)) == 3


def test_the_first_rounds_of_a_longer_run_are_those_of_a_shorter_one(tiny, tmp_path):
    lines = []
    for rounds in (1, 2):
        journal = Journal(tmp_path / str(rounds))
        run(tiny({**QUICK, "rounds": rounds}), journal)
        lines.append([(line["test_loss"], line["train_loss"]) for line in journal.rounds()])
    assert lines[1][:2] == lines[0]


@pytest.mark.parametrize(("kind", "recipe"), [pair for pair in PAIRS if pair[0] == "plainnet"])
def test_every_recipe_survives_batches_of_one_under_label_skew(tiny, tmp_path, kind, recipe):
    flat = {"recipe": recipe, "rounds": 1, "client.batch-size": 1}
    smallest = SMALLEST[kind].model_dump(by_alias=True)
    flat |= {f"network.{key}": value for key, value in smallest.items()}
    skewed = {"partition.kind": "dirichlet", "partition.alpha": 0.1, "partition.clients": 200}
    journal = Journal(tmp_path)
    result = run(tiny({**flat, **skewed}), journal)
    line = journal.rounds()[1]
    assert (line["asked"], line["replied"], line["refused"]) == (2, 2, [])
    assert result["images"] == sum(account["steps"] for account in journal.clients()) > 0
    # Only a BatchNorm can get too few values, and then every single step of it is counted.
    assert result["single_value_steps"] in (
        (0, result["images"]) if find(recipe).batchnorm else (0,)
    )
