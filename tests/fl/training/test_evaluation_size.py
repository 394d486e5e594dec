"""How many examples evaluation takes at a time: 250, or as few as large ones need."""

import pytest
import torch
from torch import nn

from fl.config import Experiment
from fl.data import Form
from fl.data.dataset import Dataset, Split
from fl.training.loop import evaluate, examples_at_a_time
from fl.training.parameters import FlatNetwork, build_network
from fl.vectorized import operators


def seen(shape: tuple[int, ...], examples: int, more: dict | None = None) -> list[int]:
    """Evaluate a network that looks at one value an example, and return its batches' sizes."""
    images = torch.zeros(1, *shape, dtype=torch.uint8).expand(examples, *shape)
    split = Split(images, torch.zeros(examples, dtype=torch.int64))
    few = Split(images[:1], split.labels[:1])
    data = Dataset("zeros", few, split, ("a", "b"), "none", "nowhere")
    knobs = Experiment.from_flat(
        {"network.depth": 2, "network.width": 4, "network.stem-stride": 1, **(more or {})}
    )
    network = build_network(knobs, torch.Generator().manual_seed(1), data.form)
    sizes = list[int]()

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        return torch.zeros(len(inputs), 2)

    network.largest_output(shape)  # the network's own, before it looks at one value only
    network.module.forward = answer
    loss, _ = evaluate(network, data, split)
    assert loss == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert sum(sizes) == examples
    return sizes


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_ordinary_examples_are_evaluated_250_at_a_time(shape):
    assert seen(shape, 500) == [250, 250]


@pytest.mark.parametrize("side", [24, 28, 64])
def test_the_largest_output_of_a_batch_of_volumes_is_bounded(side):
    most = 2**24 // (4 * side**3)  # values of 4 channels
    assert max(seen((1, side, side, side), min(300, 3 * most))) <= most


class Recurrent(nn.Module):
    """Gives its outputs in a tuple, as `nn.LSTM` does."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(2, 64, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cells(x.mT)[0][:, -1]


LARGE = {
    "signals": ((2, 30_000), nn.Conv1d(2, 16, 3, padding=1), 16 * 30_000),
    "a wide layer": ((4,), nn.Linear(4, 2**18), 2**18),
    "masks of many classes": ((3, 64, 64), nn.Conv2d(3, 21, 1), 21 * 64 * 64),
    "a layer of several outputs": ((2, 2_000), Recurrent(), 64 * 2_000),
    "volumes": ((1, 40, 40, 40), nn.Conv3d(1, 8, 1), 8 * 40**3),
}


@pytest.mark.parametrize("name", LARGE)
def test_whatever_is_large_is_evaluated_as_many_at_a_time_as_fit(name):
    shape, layer, values = LARGE[name]
    network = FlatNetwork(nn.Sequential(layer, nn.Flatten()), torch.device("cpu"), foreign=True)
    assert network.largest_output(shape) == values
    assert examples_at_a_time(network, shape) == min(250, 2**24 // values)
    assert network.module.training


def test_a_batchnorm_without_statistics_is_evaluated_in_batches_by_inputs_alone():
    assert max(seen((1, 28, 28, 28), 500, {"recipe": "batchnorm", "state.bn": "drop"})) == 250
    assert max(seen((1, 28, 28, 28), 500, {"recipe": "batchnorm"})) < 250


@pytest.mark.parametrize(
    "recipe", [pytest.param("zc-swish", marks=pytest.mark.slow), "salunet", "none"]
)
def test_operators_give_the_outputs_of_pytorch_up_to_rounding(recipe):
    knobs = Experiment.from_flat({"network.depth": 4, "network.width": 8, "recipe": recipe})
    form = Form((3, 16, 16), 10)
    network = build_network(knobs, torch.Generator().manual_seed(1), form)
    network.module.eval()
    inputs = torch.randn(50, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    assert operators.unavailable_reason() is None
    with torch.no_grad():
        expected = network.module(inputs)
        with operators.Operators():
            found = network.module(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, expected)  # ours were at work
