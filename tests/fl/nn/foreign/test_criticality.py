"""Critical initial weights: laws of signals and gradients over depth, and refusals."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fl.config import Experiment, Network
from fl.config.parsing import ConfigError
from fl.nn import RECIPES, Place, build, convert, find
from fl.nn.criticality import look, of_recipe, targeted
from fl.nn.layers.gains import bends, elementwise, moments
from fl.nn.recipe import Recipe

SHAPE = (64, 1)
ELEMENTWISE = "none leaky-relu gelu swish zc-swish zc-swish-gated zc-swish-shifted salunet dyt derf"
"""Recipes whose networks are rows of layers, without a look at other values."""


def quick(*chosen: str, names: str = ELEMENTWISE) -> list:
    """Return all names, but for those chosen with the marker `slow`."""
    return [n if n in chosen else pytest.param(n, marks=pytest.mark.slow) for n in names.split()]


class Wave(nn.Module):
    """A stranger's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(3 * x) ** 2


def stranger() -> Recipe:
    return Recipe("wave", norm=lambda _: nn.Identity(), activation=lambda _: Wave())


def made(recipe: str | Recipe, gain: float | str = 1.0, **knobs) -> nn.Module:
    sizes = {"kind": "ffnn", "depth": 5, "width": 512, "init": "critical", **knobs}
    network = Network(**sizes, gain=gain)
    return build(network, recipe, SHAPE, 10, torch.Generator().manual_seed(1))


def passed(net: nn.Module, layers: str = "linear") -> list[tuple[float, float]]:
    """Return the mean square of each hidden layer's output, and of the gradient there."""
    outputs = []
    for name, module in net.named_modules():
        if name.endswith(layers):
            module.register_forward_hook(lambda _, args, y: outputs.append(y))
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(2))
    x = x * (x[0].numel() ** 0.5 / x.flatten(1).norm(dim=1).view(-1, 1, 1))
    random = torch.randn(64, 10, generator=torch.Generator().manual_seed(3))
    gradients = torch.autograd.grad((net(x) * random).sum(), outputs)
    return [
        (y.square().mean().item(), g.square().mean().item())
        for y, g in zip(outputs, gradients, strict=True)
    ]


@pytest.mark.parametrize(
    ("recipe", "forward", "backward"),
    [
        ("none", 1.0, 1.0),
        ("leaky-relu", 1.09, 1.09),  # 1 + 0.3²
        ("swish", 0.71, 0.76),
        ("zc-swish", 1.47, 1.52),
        ("salunet", 0.32, 0.51),
        ("selfnorm", 2.0, 2.14),
        ("batchnorm", 1.0, 1.0),
    ],
)
def test_factors_with_he_weights(recipe: str, forward: float, backward: float) -> None:
    found = of_recipe(find(recipe), nn.ReLU)
    assert (2 * found.square, 2 * found.slope) == pytest.approx((forward, backward), abs=0.005)


def test_moments_of_functions_with_closed_forms() -> None:
    for function, square, slope in (
        (lambda x: x**3, 15, 27),
        (lambda x: x.abs(), 1, 1),
        (torch.sin, (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
        (lambda x: (x * math.sqrt(2)).exp(), math.exp(4), 2 * math.exp(4)),
    ):
        found = moments(function)
        assert (found.square, found.slope) == pytest.approx((square, slope), rel=1e-6)


@pytest.mark.parametrize("recipe", quick("salunet", names=f"{ELEMENTWISE} selfnorm"))
def test_chi_is_that_of_a_sample_by_automatic_differentiation(recipe: str) -> None:
    """By 262,144 numbers: both moments are within five standard errors of the sample's."""
    net = convert(nn.Sequential(nn.BatchNorm1d(1), nn.ReLU()), recipe, shape=(1,))
    x = torch.randn(2**18, 1, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = net(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    found = of_recipe(find(recipe), nn.ReLU)
    for sample, exact in ((y, found.square), (slope, found.slope)):
        squares = sample.detach().double().square()
        assert abs(squares.mean().item() - exact) < 5 * squares.std().item() / 2**9


@pytest.mark.parametrize("recipe", [*quick("zc-swish", "salunet"), "wave"])
def test_signals_keep_their_size_over_depth(recipe: str) -> None:
    """Of layers of 512: the mean square of pre-activations stays within 15 % of 1."""
    for square, _ in passed(made(stranger() if recipe == "wave" else recipe)):
        assert square == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("recipe", quick("salunet", names="none leaky-relu zc-swish salunet"))
def test_a_gain_is_what_signals_or_gradients_are_multiplied_by(recipe: str) -> None:
    """Of homogeneous functions at every depth; of others where what comes in is still N(0, 1)."""
    depth = 5 if recipe in ("none", "leaky-relu") else 3
    forward = passed(made(recipe, 1.5, depth=depth))
    for (before, _), (after, _) in itertools.pairwise(forward):
        assert after / before == pytest.approx(1.5, rel=0.1)
    (_, first), (_, second) = passed(made(recipe, "backward:1.5", depth=depth))[:2]
    assert first / second == pytest.approx(1.5, rel=0.12)


@pytest.mark.parametrize("recipe", quick("leaky-relu", names="none leaky-relu swish"))
def test_a_gain_is_matched_by_the_name_of_a_recipe(recipe: str) -> None:
    by_name, by_number = (look(made(recipe, g, width=64), SHAPE) for g in ("zc-swish", 1.473022))
    assert by_name.depth == pytest.approx(by_number.depth, rel=1e-4)
    he = look(made("zc-swish", init="he", width=64), SHAPE)
    assert by_name.depth[0] == pytest.approx(he.depth[0], rel=1e-4), "He's weights of ZC-Swish"


def test_critical_weights_are_the_same_draws_in_other_sizes() -> None:
    one, other = (made(recipe, width=16).state_dict() for recipe in ("none", "zc-swish"))
    ratio = of_recipe(find("none"), nn.ReLU).square / of_recipe(find("zc-swish"), nn.ReLU).square
    for name in ("layers.1.linear.weight", "layers.3.linear.weight"):
        torch.testing.assert_close(other[name], one[name] * ratio**0.5)
    for name in ("layers.0.linear.weight", "classifier.weight"):
        assert torch.equal(other[name], one[name]), "no activation in front, or the classifier"


@pytest.mark.slow
def test_merges_and_gates_are_found_out_and_standardized_weights_left() -> None:
    small = {"width": 8, "init": "critical"}
    for kind, depth, recipe, layer, part in (
        ("resnet", 8, "salunet", "blocks.1.branch.1.conv", "salunet"),
        ("resnet-v2", 8, "zc-swish", "blocks.1.shortcut.conv", "zc-swish"),
        ("efficientnet", 7, "swish", "blocks.0.branch.project.conv", "swish"),
        ("vit", 2, "gelu", "blocks.0.mlp.layers.narrow", "gelu"),
    ):
        network = Network(kind=kind, depth=depth, **small)
        net = build(network, recipe, (1, 16, 16), 10, torch.Generator().manual_seed(1))
        found = look(net, (1, 16, 16))
        assert found.depth is None, "no row of layers"
        hidden = {one.name: one.function for one in found.hidden}
        assert hidden[layer] == of_recipe(find(part), nn.ReLU)
        assert "blocks.0.attention.heads.projection" not in hidden
    same = [
        build(Network(depth=5, width=8, init=init), "nf", (1, 16, 16), 10, torch.Generator())
        for init in ("lecun", "critical")
    ]
    assert all(torch.equal(*pair) for pair in zip(*(n.parameters() for n in same), strict=True))


class Own(nn.Module):
    """A stranger's network, with an activation of its own behind a pool."""

    def __init__(self, calls: bool = False) -> None:
        super().__init__()
        self.first, self.wave = nn.Conv2d(3, 256, 3), Wave()
        self.pool, self.second = nn.MaxPool2d(1), nn.Conv2d(256, 256, 3)
        self.head, self.calls = nn.Linear(256, 4), calls

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.pool(self.wave(self.first(x))))
        return self.head((nn.functional.silu(y) if self.calls else y).mean((2, 3)))


def test_a_stranger_s_activation_is_found_in_its_network() -> None:
    knobs = Network(kind="mine.py:Own", init="critical")
    net = build(knobs, "own", (3, 8, 8), 4, torch.Generator(), lambda shape, classes: Own())
    (hidden,) = look(net, (3, 8, 8)).hidden
    assert hidden.name == "second"
    exact = moments(lambda x: x + torch.sin(3 * x) ** 2)
    assert (hidden.function.square, hidden.function.slope) == (exact.square, exact.slope)
    assert hidden.strength * exact.square == pytest.approx(1, rel=0.02)
    line = "network.init=critical can't see functions: silu in forward; make it a module"
    with pytest.raises(ConfigError, match=line):
        build(knobs, "own", (3, 8, 8), 4, torch.Generator(), lambda *_: Own(calls=True))


def test_what_is_elementwise_is_tried_out() -> None:
    for layer in (nn.PReLU(5), nn.ReLU(inplace=True), Wave(), nn.Hardtanh()):
        function = elementwise(layer, (1, 5, 4, 4))
        assert function is not None
        assert bends(function)
    assert elementwise(RECIPES["dyt"].norm(Place(5, per_channel=True)), (1, 5, 4, 4)) is not None
    for layer in (nn.Softmax(1), nn.LayerNorm(5), nn.MaxPool2d(2), nn.GLU(1), nn.Flatten()):
        assert elementwise(layer, (1, 5, 4, 4)) is None
    assert not bends(lambda x: 3 * x - 1)


@pytest.mark.parametrize("gain", ["zc-swoosh", "backward:", "backward:-1", "nan", 0.0, -1.0])
def test_an_impossible_gain_is_refused(gain: float | str) -> None:
    with pytest.raises(ValueError, match=r"network.gain=.* should be a number above 0"):
        targeted(gain)


def test_a_gain_is_for_critical_weights() -> None:
    with pytest.raises(ValueError, match=r"gain=2.0 needs network.init=critical, found he"):
        made("none", 2.0, init="he")
    assert Experiment().replace({"network.init": "critical"}).identity != Experiment().identity
