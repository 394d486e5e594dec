"""The knobs of a network that stand for a normalizer or beside one: groups, gates, features."""

import pytest
import torch
from torch import nn

from fl.config import Experiment, Network
from fl.nn import build, resolve_auto
from fl.nn.layers.normalizers.features import FeatureNorm
from fl.nn.layers.squeeze import SqueezeExcite
from tests.smallest import SMALLEST

GROUPED = ("groupnorm", "ws-groupnorm")


def made(network: Network, recipe: str, shape: tuple[int, ...] = (1, 8, 8)) -> nn.Module:
    return build(network, recipe, shape, 3, torch.Generator().manual_seed(1))


def groups(network: Network, recipe: str) -> list[int]:
    layers = made(network, recipe).modules()
    return [layer.num_groups for layer in layers if isinstance(layer, nn.GroupNorm)]


@pytest.mark.parametrize("recipe", GROUPED)
@pytest.mark.parametrize("kind", ["plainnet", "cnn", "resnet", "resnet-v2", "efficientnet"])
def test_every_layer_has_the_groups_that_are_asked_for(kind: str, recipe: str) -> None:
    network = SMALLEST[kind].model_copy(update={"width": 32})
    usual = groups(network, recipe)
    assert set(usual) == {4}
    # An efficientnet of width 32 has layers of 16 and of 24 channels.
    asked = 8 if kind == "efficientnet" else 32
    found = groups(network.model_copy(update={"groups": asked}), recipe)
    assert found == [asked] * len(usual)


@pytest.mark.parametrize("recipe", GROUPED)
def test_as_many_groups_as_auto_takes_are_the_same_network(recipe: str) -> None:
    network = Network(kind="plainnet", depth=4, width=8)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    auto, asked, other = (
        made(network.model_copy(update={"groups": count}), recipe)(images)
        for count in ("auto", 4, 2)
    )
    assert torch.equal(auto, asked)
    assert not torch.allclose(auto, other)


def test_groups_that_do_not_divide_the_channels_are_refused_in_one_line() -> None:
    network = Network(kind="plainnet", depth=4, width=12, groups=8)
    with pytest.raises(ValueError, match="divide") as error:
        made(network, "groupnorm")
    expected = "network.groups=8 does not divide the 12 channels of a layer; these do: 1, 2, 3, "
    assert str(error.value) == expected + "4, 6, 12"


@pytest.mark.parametrize("recipe", ["groupnorm-2", "batchnorm", "zc-swish"])
def test_groups_are_for_recipes_that_have_them(recipe: str) -> None:
    knobs = Experiment(recipe=recipe, network=Network(groups=8))
    with pytest.raises(ValueError, match="groups") as error:
        resolve_auto(knobs)
    expected = f"network.groups=8 is for the recipes groupnorm, ws-groupnorm, found recipe={recipe}"
    assert str(error.value) == expected


def test_the_default_leaves_identities_as_they_were() -> None:
    plain = Experiment(recipe="groupnorm")
    added = {"groups": ("auto", 4), "squeeze": (0, 16), "feature-norm": (False, True)}
    for key, (default, other) in added.items():
        assert plain.replace({f"network.{key}": default}).identity == plain.identity
        assert plain.replace({f"network.{key}": other}).identity != plain.identity


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_classifier_is_given_features_of_equal_length(kind: str) -> None:
    recipe = "nf" if kind == "nfnet" else "gelu"
    shape = (1, 32, 32) if kind == "nfnet" else (1, 8, 8)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    images = (images * torch.tensor([0.1, 1, 10]).view(-1, 1, 1, 1)).double()
    seen = []
    for asked in (False, True):
        network = SMALLEST[kind].model_copy(update={"feature_norm": asked})
        net = made(network, recipe, shape).double()
        net.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        net.eval()(images)
    plain, normalized = seen
    lengths = torch.full((3,), plain.shape[1] ** 0.5, dtype=torch.float64)
    torch.testing.assert_close(normalized.norm(dim=1), lengths, rtol=1e-12, atol=0)
    scaled = plain * (lengths / plain.norm(dim=1))[:, None]
    torch.testing.assert_close(normalized, scaled, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(plain, normalized, rtol=1e-3)


def test_the_gradient_of_normalized_features_is_that_of_the_formula() -> None:
    """d/dz (√d·z/‖z‖) = √d·(I - z·zᵀ/‖z‖²)/‖z‖: nothing along z."""
    z = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    upstream = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(FeatureNorm()(leaf), leaf, upstream)
    length = z.norm(dim=1, keepdim=True)
    along = (upstream * z).sum(1, keepdim=True) / length**2
    torch.testing.assert_close(found, 5**0.5 * (upstream - along * z) / length)
    torch.testing.assert_close((found * z).sum(1), torch.zeros(2, dtype=torch.float64))
    assert FeatureNorm()(torch.zeros(1, 5)).tolist() == [[0.0] * 5]


@pytest.mark.parametrize("kind", ["resnet", "resnet-v2"])
@pytest.mark.parametrize("depth", [8, 18, 50])
def test_every_branch_ends_with_an_eighth_of_its_channels(kind: str, depth: int) -> None:
    network = Network(kind=kind, depth=depth, width=8)
    plain = made(network, "groupnorm")
    squeezed = made(network.model_copy(update={"squeeze": 8}), "groupnorm")
    found = [x for x in squeezed.modules() if isinstance(x, SqueezeExcite)]
    assert len(found) == len(plain.blocks)
    extra = 0
    for layer in found:
        channels, inside = layer.expand.out_features, layer.expand.in_features
        assert (layer.reduce.in_features, inside) == (channels, channels // 8)
        extra += 2 * channels * inside + channels + inside
    sizes = [sum(p.numel() for p in net.parameters()) for net in (plain, squeezed)]
    assert sizes[1] == sizes[0] + extra
    assert plain.state_dict().keys() < squeezed.state_dict().keys()


@pytest.mark.parametrize(
    ("kind", "recipe", "shift"),
    [("resnet", "groupnorm", 50.0), ("resnet-v2", "groupnorm", 50.0), ("resnet-v2", "nf", 0.0)],
)
def test_gates_that_are_open_are_no_gates(kind: str, recipe: str, shift: float) -> None:
    """In a network with an α the gate is doubled, so a half-open one is none."""
    network = SMALLEST[kind]
    plain = made(network, recipe).double()
    squeezed = made(network.model_copy(update={"squeeze": 3}), recipe).double()
    squeezed.load_state_dict({**squeezed.state_dict(), **plain.state_dict()})
    for net in (plain, squeezed):  # an NF block begins as its shortcut
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                nn.init.constant_(parameter, 0.7)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    assert not torch.allclose(squeezed(images), plain(images))
    for layer in squeezed.modules():
        if isinstance(layer, SqueezeExcite):
            nn.init.zeros_(layer.expand.weight)
            nn.init.constant_(layer.expand.bias, shift)
    torch.testing.assert_close(squeezed(images), plain(images), rtol=1e-10, atol=1e-10)


def test_squeeze_and_excitation_is_for_resnets() -> None:
    knobs = Experiment(recipe="none", network=Network(squeeze=16))
    with pytest.raises(ValueError, match="squeeze") as error:
        resolve_auto(knobs)
    expected = "network.squeeze=16 is for network.kind=resnet or resnet-v2, found plainnet"
    assert str(error.value) == expected
