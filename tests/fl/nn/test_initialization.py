from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
from torch import nn

from fl.nn import build
from fl.nn.initialization import WEIGHED, initialize
from fl.nn.layers.convs import Kernel, StandardizedConv
from fl.nn.layers.embeddings import PositionEmbedding
from fl.reproducibility.seeds import torch_stream
from tests.smallest import PAIRS, SMALLEST


def filled(scheme: str, seed: int = 5) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.BatchNorm2d(64), nn.Linear(256, 100))
    initialize(net, scheme, torch.Generator().manual_seed(seed))
    return net


@pytest.mark.parametrize(
    ("scheme", "conv", "classifier"),
    [("torch", 1 / 3, 1 / 3), ("he", 2, 1), ("lecun", 1, 1)],
)
def test_variance_times_fan_in(scheme: str, conv: float, classifier: float) -> None:
    net = filled(scheme)
    # 9216 and 25600 values: the standard error of a variance is 1.5 % and 0.9 %.
    for layer, expected in ((net[0], conv), (net[3], classifier)):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() * fan_in == pytest.approx(expected, rel=0.06)
        assert abs(layer.weight.mean().item()) < 5 * layer.weight.numel() ** -0.5 * fan_in**-0.5


@pytest.mark.parametrize("scheme", ["he", "lecun"])
def test_normal_schemes_have_no_bias_but_tails(scheme: str) -> None:
    net = filled(scheme)
    assert not net[0].bias.any()
    assert not net[3].bias.any()
    assert net[0].weight.abs().max() > 3 * net[0].weight.std(), "not a uniform distribution"


def test_torch_scheme_is_torchs_default_bit_for_bit() -> None:
    ours = filled("torch", seed=7)
    number = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(7)))
    fresh = {"0": nn.Conv2d(16, 64, 3), "3": nn.Linear(256, 100)}
    with torch.random.fork_rng():
        for place, layer in fresh.items():
            seed = torch_stream(number, f"{place}.weight").initial_seed()
            torch.manual_seed(seed)
            layer.reset_parameters()  # which draws the weights first
            assert torch.equal(ours.get_submodule(place).weight, layer.weight)
            bound = layer.weight[0].numel() ** -0.5
            torch.manual_seed(torch_stream(number, f"{place}.bias").initial_seed())
            drawn = nn.init.uniform_(torch.empty_like(layer.bias), -bound, bound)
            assert torch.equal(ours.get_submodule(place).bias, drawn)


def test_a_layer_is_drawn_alike_whatever_stands_beside_it() -> None:
    """A norm, a bias, or a layer more in front moves no weight of another layer."""
    conv, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
    rows = [
        {"conv": conv, "head": head},
        {"conv": nn.Conv2d(3, 8, 3, bias=False), "norm": nn.BatchNorm2d(8), "head": head},
        {"stem": nn.Linear(7, 7), "conv": StandardizedConv(Kernel(2, 3, 8, 3)), "head": head},
    ]
    for scheme in ("torch", "he", "lecun"):
        found = []
        for row in rows:
            net = nn.Sequential(OrderedDict({key: deepcopy(layer) for key, layer in row.items()}))
            initialize(net, scheme, torch.Generator().manual_seed(3))
            found.append([net.conv.weight, net.head.weight, net.head.bias])
        assert all(
            torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True)
        )
        assert not torch.equal(found[0][0].view(-1)[:40], found[0][1].view(-1)[:40])


SLOWER = ("resnet-v2", "nfnet", "efficientnet")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOWER else k for k in SMALLEST]
)
def test_recipes_that_share_a_layer_start_with_the_same_weights(kind: str) -> None:
    """Under `torch`, where biases are drawn, too. Norms' scales and scalars are constants."""
    first: dict[tuple, tuple[str, torch.Tensor]] = {}
    network = SMALLEST[kind].model_copy(update={"init": "torch"})
    for recipe in (name for family, name in PAIRS if family == kind):
        net = build(network, recipe, (1, 28, 28), 10, torch.Generator().manual_seed(1))
        layers = {n: m for n, m in net.named_modules() if isinstance(m, WEIGHED)}
        assert len(layers) >= 3
        weights = {f"{n}.weight": m.weight for n, m in layers.items()}
        biases = {f"{n}.bias": m.bias for n, m in layers.items() if m.bias is not None}
        for name, value in (weights | biases).items():
            whose, same = first.setdefault((name, value.shape), (recipe, value))
            assert torch.equal(value, same), f"{name} of {recipe} is not that of {whose}"
    assert len({name for name, _ in first}) == len(first), "and all share its shape"


def test_schemes_scale_the_same_draws() -> None:
    he, lecun = filled("he"), filled("lecun")
    torch.testing.assert_close(he[0].weight, 2**0.5 * lecun[0].weight)
    assert torch.equal(he[3].weight, lecun[3].weight), "the classifier's are the same"


def test_norms_keep_their_constants() -> None:
    norm = filled("he")[2]
    assert torch.equal(norm.weight, torch.ones(64))
    assert torch.equal(norm.bias, torch.zeros(64))


@pytest.mark.parametrize("scheme", ["torch", "he", "lecun"])
def test_embeddings_are_small_under_every_scheme(scheme: str) -> None:
    net = nn.Sequential(PositionEmbedding(50, 200), nn.Linear(2, 3))
    initialize(net, scheme, torch.Generator().manual_seed(1))
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.04)  # 10,000 values
    assert abs(net[0].weight.mean().item()) < 5 * 0.02 / 100
    assert net[1].weight.any(), "and the layers are filled, too"
