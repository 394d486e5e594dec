"""How many examples evaluation takes at a time: 250, or as few as large ones need."""

import pytest
import torch

from fl.config import Experiment
from fl.data.dataset import Dataset, Split
from fl.training.loop import evaluate
from fl.training.parameters import build_network


def seen(shape: tuple[int, ...], examples: int) -> list[int]:
    """Evaluate a network that looks at one value an example, and return its batches' sizes."""
    images = torch.zeros(1, *shape, dtype=torch.uint8).expand(examples, *shape)
    split = Split(images, torch.zeros(examples, dtype=torch.int64))
    few = Split(images[:1], split.labels[:1])
    data = Dataset("zeros", few, split, ("a", "b"), "none", "nowhere")
    knobs = Experiment.from_flat({"network.depth": 2, "network.width": 4})
    network = build_network(knobs, torch.Generator().manual_seed(1), data.form)
    sizes = list[int]()

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        return torch.zeros(len(inputs), 2)

    network.module.forward = answer
    loss, _ = evaluate(network, data, split)
    assert loss == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert sum(sizes) == examples
    return sizes


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 24, 24, 24), (1, 28, 28, 28)])
def test_ordinary_examples_are_evaluated_250_at_a_time(shape):
    assert seen(shape, 500) == [250, 250]


def test_large_examples_are_evaluated_few_at_a_time():
    assert max(seen((1, 64, 64, 64), 50)) <= 250 * 28**3 // 64**3 == 20
