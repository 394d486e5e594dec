"""The knobs of a network that change its normalization: groups, and of features."""

import pytest
import torch
from torch import nn

from fl.config import Experiment, Network
from fl.nn import build, resolve_auto
from fl.nn.layers.normalizers.features import FeatureNorm
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
    for key, default, other in (("groups", "auto", 4), ("feature-norm", False, True)):
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
