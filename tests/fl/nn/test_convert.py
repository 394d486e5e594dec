"""Recipes in networks that we never saw."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl.config.parsing import ConfigError
from fl.nn import RECIPES, BatchNorm, Noise, Place, Recipe, convert
from fl.nn.layers.activations import GALU, SALU, SWALU, ZCSwish
from fl.nn.layers.convs import StandardizedConv
from fl.nn.probes import measure

SHAPE = (3, 8, 8)


class Block(nn.Module):
    """A residual block, all of whose layers are modules."""

    def __init__(self, channels: int, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Net(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.block = Block(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.block(self.stem(x)).mean((2, 3))))


class Tokens(nn.Module):
    """A block of a transformer behind an embedding of patches, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.norm1 = nn.LayerNorm(8)
        self.up, self.act, self.down = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        self.fc_norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.down(self.act(self.up(self.norm1(x))))
        return self.head(self.fc_norm(x.mean(1)))


class Functions(nn.Module):
    """A network that calls an activation as a function, in one of three ways."""

    def __init__(self, norm: bool = False, way: str = "F") -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)
        self.norm, self.way = norm, way

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        if self.norm:
            x = F.group_norm(x, 2)
        call = {"F": F.relu, "torch": torch.relu, "method": Tensor.relu}[self.way]
        return self.head(call(x).mean((2, 3)))


def made(kind: type[nn.Module] = Net, *arguments: object) -> nn.Module:
    torch.manual_seed(1)
    return kind(*arguments)


def batch(size: int = 1) -> Tensor:
    return torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(2))


def test_none_is_the_network_without_its_normalizers_bit_for_bit() -> None:
    by_hand = made()
    by_hand.stem[1] = by_hand.block.bn1 = by_hand.block.bn2 = nn.Identity()
    converted = convert(made(), "none", shape=SHAPE)
    assert torch.equal(converted.eval()(batch()), by_hand.eval()(batch()))
    assert converted.state_dict().keys() == by_hand.state_dict().keys()


def test_own_keeps_numbers_and_names_and_takes_one_image() -> None:
    theirs, ours = made(), convert(made(), "own")
    kept = {n: t for n, t in theirs.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert kept.keys() == ours.state_dict().keys()
    for network in (theirs, ours):
        network.drop.eval()
    images = batch(3)
    assert torch.equal(ours(images), theirs(images))
    assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in ours.state_dict().items())
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert isinstance(ours.block.bn1, BatchNorm)
    assert isinstance(ours.drop, Noise)


@pytest.mark.parametrize("recipe", [name for name, row in RECIPES.items() if row.converts])
def test_every_recipe_that_converts_trains_on_one_image(recipe: str) -> None:
    network = convert(made(), recipe, shape=SHAPE, generator=torch.Generator().manual_seed(1))
    network.drop.eval()
    F.cross_entropy(network(batch()), torch.tensor([1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    kinds = [layer.kind for layer in measure(network, batch(2), torch.tensor([1, 2]))]
    norms = 0 if isinstance(RECIPES[recipe].norm(Place(4)), nn.Identity) else 3
    assert [kinds.count(kind) for kind in ("weights", "norm", "activation")] == [4, norms, 3]


def test_layers_of_each_kind_become_the_recipe_s() -> None:
    network = convert(made(), "salunet", shape=SHAPE)
    assert isinstance(network.stem[1], SALU)
    assert isinstance(network.block.relu, SWALU)
    network = convert(made(), "ws-groupnorm", shape=SHAPE)
    conv = network.block.conv1
    assert isinstance(conv, StandardizedConv)
    assert (conv.kernel.dilation, conv.kernel.zeros, conv.bias) == (2, 2, None)
    assert torch.equal(conv.weight, made().block.conv1.weight)
    assert network.block.conv2.kernel.groups == 2
    assert isinstance(network.block.bn1, nn.GroupNorm)


def test_layernorm_of_tokens_is_what_it_was() -> None:
    network, before = convert(made(Tokens), "layernorm", shape=SHAPE), made(Tokens)
    torch.testing.assert_close(network(batch(2)), before(batch(2)))
    assert network.norm1.layer is not before.norm1
    assert isinstance(convert(made(Tokens), "salunet", shape=SHAPE).act, GALU)
    with pytest.raises(ConfigError, match="recipe=groupnorm is for images, and norm1 normalizes"):
        convert(made(Tokens), "groupnorm", shape=SHAPE)


def test_channels_last_are_seen_where_sizes_agree() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.act, self.head = nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.norm(x))).mean((1, 2))

    class Scale(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(channels).float())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight.view(-1, *[1] * (x.ndim - 2))

    row = Recipe("Scale", norm=lambda p: Scale(p.channels), activation=lambda p: Scale(p.channels))
    network, x = convert(made(Last), row, shape=(8, 8, 8)), torch.ones(1, 8, 8, 8)
    assert torch.equal(network.act(network.norm(x)), x * torch.arange(8.0) ** 2)


@pytest.mark.parametrize("way", ["F", "torch", "method"])
def test_functions_are_told_in_one_line(way: str) -> None:
    with pytest.warns(UserWarning, match=r"can't replace functions: relu in forward; they stay"):
        network = convert(made(Functions, False, way), "zc-swish", shape=SHAPE)
    assert isinstance(network.act, ZCSwish)
    convert(made(Functions, False, way), "own", shape=SHAPE)
    with pytest.raises(ConfigError, match="functions that normalize: group_norm in forward"):
        convert(made(Functions, True, way), "zc-swish", shape=SHAPE)


def test_a_network_of_functions_only_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.silu(self.conv(x)).mean((2, 3)))

    with pytest.raises(ConfigError, match="silu in forward; make them modules"):
        convert(made(Bare), "zc-swish", shape=SHAPE)
    with pytest.raises(ConfigError, match="takes the place of normalizers, and this network calls"):
        convert(made(Bare), "groupnorm", shape=SHAPE)


@pytest.mark.parametrize("recipe", ["nf", "nf-agc", "nf-zc-swish", "selfnorm-mp"])
def test_a_recipe_for_skeletons_is_refused(recipe: str) -> None:
    with pytest.raises(ConfigError, match="how branches are merged"):
        convert(made(), recipe, shape=SHAPE)


def test_what_a_standardized_convolution_can_t_carry_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, (1, 3)), nn.BatchNorm2d(4), nn.ReLU())
    with pytest.raises(ConfigError, match=r"^0: Conv2d.* can't have standardized weights"):
        convert(network, "ws-groupnorm", shape=SHAPE)
    strange = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LocalResponseNorm(2), nn.ReLU())
    with pytest.raises(ConfigError, match="1: no recipe but own knows how to replace LocalResp"):
        convert(strange, "zc-swish", shape=SHAPE)


def test_the_table_of_recipes_can_t_be_changed() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        RECIPES["mine"] = RECIPES["none"]


def test_a_pass_leaves_no_trace() -> None:
    network = made()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    convert(network, "gelu", shape=SHAPE)
    after = network.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
