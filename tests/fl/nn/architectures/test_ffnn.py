import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl.config import Experiment, Network, relevant
from fl.nn import build, seed_noise

SHAPE = (3, 32, 32)


def make(recipe: str, shape=SHAPE, classes: int = 100, **knobs) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    return build(Network(kind="ffnn", **knobs), recipe, shape, classes, generator)


def test_the_poster_s_network_has_its_known_size() -> None:
    # 3072·100, nine times 100·100, and a classifier of 100·100 + 100; a bias or two vectors of
    # BatchNorm's for each of ten hidden layers.
    weights = 3072 * 100 + 9 * 100 * 100 + 100 * 100 + 100
    for recipe, beside in (("none", 1000), ("batchnorm", 2000), ("batchnorm-no-affine", 0)):
        assert sum(p.numel() for p in make(recipe).parameters()) == weights + beside


def test_is_linear_layers_and_relu_in_a_row() -> None:
    net = make("none", (2, 3, 5), 7, depth=3, width=4, init="torch")
    x = torch.randn(6, 2, 3, 5, generator=torch.Generator().manual_seed(2))
    first, second = (layer.linear for layer in net.layers)
    hidden = F.relu(F.linear(x.reshape(6, 30), first.weight, first.bias))
    hidden = F.relu(F.linear(hidden, second.weight, second.bias))
    expected = F.linear(hidden, net.classifier.weight, net.classifier.bias)
    torch.testing.assert_close(net(x), expected)


def test_no_bias_where_a_norm_cancels_it() -> None:
    assert make("batchnorm", depth=2).layers[0].linear.bias is None
    assert make("dyt", depth=2).layers[0].linear.bias is not None


def test_dropout_is_in_front_of_the_classifier() -> None:
    net, seen = make("swish", depth=2, width=6, dropout=0.3), []
    net.classifier.register_forward_pre_hook(lambda layer, arrived: seen.append(*arrived))
    seed_noise(net, torch.Generator().manual_seed(1))
    x = torch.randn(500, *SHAPE, generator=torch.Generator().manual_seed(2))
    for mode, share in ((True, 0.3), (False, 0)):
        net.train(mode)(x)
        assert (seen[-1] == 0).float().mean().item() == pytest.approx(share, abs=0.05)


def test_an_impossible_depth_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^depth=1 is too small for an ffnn; it needs at least 2"):
        make("none", depth=1)


def test_its_idle_knobs_are_left_out_of_comparisons() -> None:
    idle = {"network.stem-stride", "network.stochastic-depth"}
    for kind in ("ffnn", "vit"):
        left = relevant(Experiment().replace({"network.kind": kind}).to_flat())
        assert (idle & left.keys() == set()) == (kind == "ffnn")
