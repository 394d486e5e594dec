import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl.config import Experiment, Network, relevant
from fl.nn import build


def make(recipe: str = "none", shape=(3, 32, 32), **knobs) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    return build(Network(kind="cnn", **knobs), recipe, shape, 10, generator)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_sizes_by_pencil() -> None:
    # (3·9 + 1)·16 + (16·9 + 1)·32 + (32·8·8 + 1)·10; a BatchNorm has two vectors for a bias.
    assert count(make()) == 448 + 4_640 + 20_490 == 25_578
    assert count(make("batchnorm")) == 25_578 + 16 + 32
    assert count(make(width=2, shape=(1, 28, 28))) == 10 * 2 + 19 * 4 + (4 * 49 + 1) * 10


def test_is_two_convolutions_with_pools_and_a_classifier() -> None:
    net = make(init="torch", width=4, shape=(2, 28, 28))
    first, _, second, _ = net.layers
    x = torch.randn(3, 2, 28, 28, generator=torch.Generator().manual_seed(2))
    hidden = F.max_pool2d(F.relu(F.conv2d(x, first.conv.weight, first.conv.bias, padding=1)), 2)
    hidden = F.relu(F.conv2d(hidden, second.conv.weight, second.conv.bias, padding=1))
    hidden = F.max_pool2d(hidden, 2).flatten(1)
    expected = F.linear(hidden, net.classifier.weight, net.classifier.bias)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(("space", "left"), [((28, 28), 49), ((5, 7), 4), ((1, 1), 1), ((9,), 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_sides_are_rounded_up(space: tuple[int, ...], left: int, stride: int) -> None:
    net = make(width=3, shape=(1, *space), stem_stride=stride)
    halved = {49: 16, 4: 1, 1: 1, 3: 2}
    assert net.classifier.in_features == 6 * (left if stride == 1 else halved[left])
    assert net(torch.zeros(2, 1, *space)).shape == (2, 10)


def test_another_depth_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^depth=8 does not fit a cnn, which has 3 layers; use 3"):
        make(depth=8)


def test_its_idle_knob_is_left_out_of_comparisons() -> None:
    left = relevant(Experiment().replace({"network.kind": "cnn"}).to_flat())
    assert "network.stochastic-depth" not in left
    assert "network.stem-stride" in left
