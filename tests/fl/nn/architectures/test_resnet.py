"""ResNet and ResNet-v2: shapes, counts and noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fl.config import Experiment, Network
from fl.nn import RECIPES, build, find, resolve_auto, seed_noise
from fl.nn.architectures.resnet import ResNet
from fl.nn.architectures.resnet_v2 import ResNetV2
from fl.nn.layers.activations import SALU, SWALU, scalars
from fl.nn.layers.merges import Add, MagnitudePreserving
from fl.nn.layers.noise import StochasticDepth
from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.slots import Size, Slots

RESNETS = ["resnet", "resnet-v2"]
every_resnet = pytest.mark.parametrize("kind", RESNETS)


def make(recipe: str = "none", shape=(3, 16, 16), classes: int = 10, **knobs) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    return build(Network(**knobs), recipe, shape, classes, generator)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layers(net: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in net.modules() if type(layer) is kind]


def test_salunet_c_18_has_a_salu_a_norm_and_a_swalu_an_activation() -> None:
    normalized = make("batchnorm", kind="resnet", depth=18)
    net = make("salunet", kind="resnet", depth=18)
    assert len(layers(normalized, BatchNorm)) == len(layers(net, SALU)) == 20
    assert len(layers(normalized, nn.ReLU)) == len(layers(net, SWALU)) == 17
    assert sum(p.numel() for layer in layers(net, SALU) for p in layer.parameters()) == 40
    assert sum(p.numel() for layer in layers(net, SWALU) for p in layer.parameters()) == 34
    assert len(scalars(net)) == 74
    assert not list(net.buffers())
    assert sum(b.numel() for b in normalized.buffers()) == 9_600


@pytest.mark.parametrize(
    ("kind", "depth", "blocks", "channels"),
    [
        ("resnet", 20, 9, 16),
        ("resnet", 26, 12, 16),
        ("resnet", 18, 8, 32),
        ("resnet", 34, 16, 32),
        ("resnet", 50, 16, 128),
        ("resnet", 101, 33, 128),
        ("resnet", 152, 50, 128),
        ("resnet-v2", 20, 9, 16),
        ("resnet-v2", 26, 8, 128),
        ("resnet-v2", 18, 8, 32),
        ("resnet-v2", 50, 16, 128),
    ],
)
def test_depth_says_how_many_stages(kind: str, depth: int, blocks: int, channels: int) -> None:
    net = make(kind=kind, depth=depth, width=4)
    assert (len(net.blocks), net.classifier.in_features) == (blocks, channels)
    shortcuts = sum("shortcut" in name for name in net.state_dict() if name.endswith("weight"))
    kernels = [name for name, p in net.named_parameters() if p.ndim == 4]
    assert len(kernels) - shortcuts + 1 == depth


@every_resnet
def test_auto_width_is_the_papers(kind: str) -> None:
    for depth, width in [("auto", 16), (8, 16), (20, 16), (18, 64), (50, 64), (152, 64)]:
        knobs = Experiment.from_flat(
            {"network.kind": kind, "network.depth": depth, "recipe": "none"}
        )
        assert resolve_auto(knobs).network.width == width


@every_resnet
@pytest.mark.parametrize("depth", [8, 18])
@pytest.mark.parametrize(("stride", "side", "kernel"), [(1, 37, 3), (2, 19, 3), (4, 10, 7)])
def test_stems(kind: str, depth: int, stride: int, side: int, kernel: int) -> None:
    net = make(kind=kind, depth=depth, width=4, stem_stride=stride)
    images = normal(1, 3, 37, 37)
    assert net.stem.conv.weight.shape[2:] == (kernel, kernel)
    assert net.stem(images).shape == (1, 4, side, side)
    last = -(-side // (4 if depth == 8 else 8))
    assert net.blocks(net.stem(images)).shape[2:] == (last, last)


@every_resnet
@pytest.mark.parametrize("shape", [(70,), (20, 20), (9, 9, 9), (1, 1), (1, 2, 1)])
@pytest.mark.parametrize("recipe", ["batchnorm", "salunet"])
def test_four_stages_train_at_batch_size_one(kind: str, recipe: str, shape) -> None:
    net = make(recipe, (2, *shape), kind=kind, depth=50, width=4, stem_stride=4)
    net(normal(1, 2, *shape)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@every_resnet
def test_noise_has_no_state_and_none_is_the_default(kind: str) -> None:
    quiet = make(kind=kind, depth=8, width=4)
    loud = make(kind=kind, depth=8, width=4, dropout=0.5, stochastic_depth=0.5)
    assert quiet.state_dict().keys() == loud.state_dict().keys()
    images = normal(4, 3, 8, 8)
    assert torch.equal(quiet.train()(images), quiet.eval()(images))
    assert torch.equal(quiet(images), loud.eval()(images))
    seed_noise(loud, torch.Generator().manual_seed(1))
    first = loud.train()(images)
    assert not torch.equal(first, loud(images))
    seed_noise(loud, torch.Generator().manual_seed(1))
    assert torch.equal(first, loud(images))


@every_resnet
@pytest.mark.parametrize("recipe", ["none", "nf"])
def test_stochastic_depth_grows_in_a_line_to_the_last_block(kind: str, recipe: str) -> None:
    if kind not in RECIPES[recipe].fits:
        recipe = "none"
    net = make(recipe, kind=kind, depth=26, width=4, stochastic_depth=0.4)
    drops = layers(net, StochasticDepth)
    blocks = len(net.blocks)
    assert [d.rate for d in drops] == pytest.approx(
        [0.4 * index / blocks for index in range(1, blocks + 1)]
    )
    assert {d.rescale for d in drops} == {recipe == "none"}


@pytest.mark.parametrize("skeleton", [ResNet, ResNetV2])
def test_blocks_merge_as_the_recipe_says(skeleton: type[nn.Module]) -> None:
    slots = Slots(replace(find("none"), merge=MagnitudePreserving))
    net = skeleton(slots, (3, 8, 8), 10, Size(depth=14, width=4, stem_stride=1))
    assert len(layers(net, MagnitudePreserving)) == 6
    assert not layers(net, Add)


def test_dropout_stands_in_front_of_the_classifier() -> None:
    net = make(kind="resnet", depth=8, width=4, dropout=0.75)
    seed_noise(net, torch.Generator().manual_seed(1))
    seen = []
    net.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net.eval()(normal(64, 3, 8, 8))
    net.train()(normal(64, 3, 8, 8))
    kept = seen[1] != 0
    assert kept[seen[0] != 0].float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert torch.allclose(seen[1][kept], 4 * seen[0][kept])
