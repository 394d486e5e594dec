"""Every recipe in every skeleton that it fits: a federated round, saved, loaded, evaluated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fl.config import Experiment
from fl.data import load
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.training import loop, parameters
from tests.smallest import PAIRS, SMALLEST

SPACES = {1: (64,), 2: (8, 8), 3: (8, 8, 8)}
WIDE = {2: (16, 16), 3: (16, 16, 16)}
"""For InstanceNorm in networks that shrink the others to single pixels, which is refused."""
IMAGES = {1: 8, 32: 66}
"""By batch size: what two clients hold; batches of 32 leave an image over."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Make a data set for each space and each batch size."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(1)
    for space in (*SPACES.values(), *WIDE.values()):
        for batch, images in IMAGES.items():
            shape = (*space, 2) if len(space) == 1 else (*space, 1)
            kind = np.float32 if len(space) == 1 else np.uint8
            arrays = {"y_train": np.arange(images) % 3, "y_test": np.arange(20) % 3}
            for split, count in (("train", images), ("test", 20)):
                arrays[f"x_{split}"] = rng.integers(0, 256, (count, *shape)).astype(kind)
            np.savez(folder / f"{space}-{batch}.npz", **arrays)
    return folder


def is_a_round(sets, dims, kind, recipe, batch, folder) -> None:
    """Train two clients for a round; the network that it writes has the accuracy that it says."""
    shrunk = recipe == "instancenorm" and kind.startswith("resnet")
    path = str(sets / f"{(WIDE if shrunk else SPACES).get(dims, SPACES[1])}-{batch}.npz")
    network = SMALLEST[kind].model_dump(by_alias=True)
    knobs = {f"network.{key}": value for key, value in network.items()}
    knobs |= {"recipe": recipe, "data.name": path, "client.batch-size": batch, "client.lr": 0.01}
    knobs |= {"partition.kind": "iid", "partition.clients": 2, "sampling.clients": 2, "rounds": 1}
    experiment, journal = Experiment().replace(knobs), Journal(folder)
    result, line = run(experiment, journal), journal.rounds()[1]
    assert (line["replied"], line["refused"], line["images"]) == (2, [], IMAGES[batch])

    loaded = parameters.build_network(experiment, torch_stream(99, "another"))
    before = loaded.state()
    loaded.load(load_file(folder / "model.safetensors"))
    assert any(not torch.equal(before[name], tensor) for name, tensor in loaded.state().items())
    data = load(path)
    loss, (sums,) = loop.evaluate(loaded, data, data.test)
    assert (loss, int(sums[0]) / 20) == (result["final_loss"], result["final_accuracy"])


@pytest.mark.parametrize("kind", SMALLEST)
def test_every_skeleton(sets, tmp_path, kind):
    recipe = next(recipe for fitting, recipe in PAIRS if fitting == kind)
    is_a_round(sets, 2, kind, recipe, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("batch", IMAGES)
@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize(("kind", "recipe"), PAIRS)
def test_every_recipe_in_every_skeleton(sets, tmp_path, kind, recipe, dims, batch):
    is_a_round(sets, dims, kind, recipe, batch, tmp_path)


CUBE = """
import torch

import fl


class Cube(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        return x + (self.strength * x) ** 3


cube = fl.Recipe(
    label="Cube", norm=lambda place: torch.nn.Identity(), activation=lambda place: Cube()
)
"""


def test_a_recipe_of_a_user_s_trains_in_our_skeletons(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CUBE, encoding="utf-8")
    for kind in ("plainnet", "resnet"):
        is_a_round(sets, 2, kind, "mine.py:cube", 32, tmp_path / kind)
        model = load_file(tmp_path / kind / "model.safetensors")
        learned = [tensor for name, tensor in model.items() if name.endswith("strength")]
        assert learned
        assert all(tensor != 0.1 for tensor in learned)
