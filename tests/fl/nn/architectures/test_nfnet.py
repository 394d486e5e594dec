import json
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fl.config import Experiment, Network
from fl.nn import SKELETONS, Place, build, find, resolve_auto, seed_noise
from fl.nn.architectures.nfnet import NFNet, ScaledActivation, doubled_product
from fl.nn.layers.convs import CONVOLUTIONS, Kernel, StandardizedConv, plain
from fl.nn.layers.merges import ScaledAdd
from fl.nn.layers.pools import AveragePool
from fl.nn.layers.squeeze import SqueezeExcite
from fl.nn.slots import Size, Slots
from tests.fl.nn.parity import GOLDEN, Fingerprint, assert_same, fingerprint

COUNTS = json.loads((GOLDEN / "counts.json").read_text(encoding="utf-8"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(recipe: str = "nf", shape: tuple[int, ...] = (1, 16, 16), **knobs) -> nn.Module:
    network = Network(**{"kind": "nfnet", "width": 4, **knobs})
    return build(network, recipe, shape, 10, seeded(1))


def meta(depth: int, width: int = 128) -> nn.Module:
    """Return timm's network in ours, without memory."""
    slots = Slots(find("nf"), 2, native=nn.GELU)
    with torch.device("meta"):
        return NFNet(slots, (3, 64, 64), 1000, Size(depth, width, 4)).to("meta")


@pytest.mark.parametrize("depth", range(7))
def test_the_published_networks_have_timm_s_sizes(depth: int) -> None:
    net = meta(depth)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[f"dm_nfnet_f{depth}"]


@pytest.mark.slow
def test_the_largest_runs_on_any_image() -> None:
    assert meta(6)(torch.empty(2, 3, 65, 33, device="meta")).shape == (2, 1000)


def timm_s(stages: list[int]):
    """Return what timm calls a tensor of ours, given the blocks of its stages.

    Ours on the left: `stem.conv1` and so on and `gain` are named alike; the rest is
    blocks.N.branch.conv1, .conv2, .conv3, .conv4   conv1, conv2, conv2b, conv3 of stages.S.B
    blocks.N.branch.attention.reduce, .expand      attn_last.fc1, .fc2
    blocks.N.shortcut.conv                          downsample.conv
    blocks.N.merge.gain                             skipinit_gain
    conv, classifier                                final_conv, head.fc
    """
    places = [f"stages.{s}.{b}" for s, blocks in enumerate(stages) for b in range(blocks)]
    renamed = [
        (r"^blocks\.(\d+)", lambda found: places[int(found[1])]),
        (r"\.branch\.conv3", ".conv2b"),
        (r"\.branch\.conv4", ".conv3"),
        (r"\.branch\.conv", ".conv"),
        (r"\.branch\.attention\.reduce", ".attn_last.fc1"),
        (r"\.branch\.attention\.expand", ".attn_last.fc2"),
        (r"\.shortcut\.", ".downsample."),
        (r"\.merge\.gain", ".skipinit_gain"),
        (r"^conv\.", "final_conv."),
        (r"^classifier\.", "head.fc."),
    ]

    def rename(name: str) -> str:
        for ours, theirs in renamed:
            name = re.sub(ours, theirs, name)
        return name

    return rename


@pytest.mark.parametrize(
    ("golden", "depth", "width"),
    [
        ("dm_nfnet_f1_narrow", "F1", 16),
        pytest.param("dm_nfnet_f0", "F0", 128, marks=pytest.mark.slow),
    ],
)
def test_logits_and_gradients_are_timm_s(golden: str, depth: str, width: int) -> None:
    expected = Fingerprint.load(golden)
    shape = tuple(expected.shape.tolist())
    net = make(shape=shape[1:], depth=depth, width=width)
    stages = [blocks * (1 + int(depth[1:])) for blocks in (1, 2, 6, 3)]
    assert_same(fingerprint(net, shape, timm_s(stages)), expected)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_halving_averages_what_there_is(dims: int, side: int) -> None:
    x = torch.randn(2, 3, *(side,) * dims, generator=seeded(1))
    found = AveragePool(2)(x)
    # A line of an odd side whose last value stands twice has the same means.
    even = F.pad(x, (0, side % 2) * dims, mode="replicate")
    for axis in range(2, x.ndim):
        even = even.unflatten(axis, (-1, 2)).mean(axis + 1)
    torch.testing.assert_close(found, even)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.integers(1, 3))
def test_same_pads_as_tensorflow_does(dims: int, n: int, side: int, stride: int) -> None:
    conv = StandardizedConv(Kernel(dims, 2, 3, side, stride, same=True))
    nn.init.normal_(conv.weight, generator=seeded(1))
    x = torch.randn(1, 2, *range(n, n + dims), generator=seeded(2))
    # TensorFlow's rule on every axis: max((⌈n/s⌉ - 1)·s + k - n, 0) zeros, an odd one behind.
    for axis in range(2, x.ndim):
        length = x.shape[axis]
        zeros = max((-(-length // stride) - 1) * stride + side - length, 0)
        front, behind = zeros // 2, zeros - zeros // 2
        pieces = [x.narrow(axis, 0, 1) * 0] * front + [x] + [x.narrow(axis, 0, 1) * 0] * behind
        x = torch.cat(pieces, axis)
    found = conv(torch.randn(1, 2, *range(n, n + dims), generator=seeded(2)))
    reference = CONVOLUTIONS[dims](2, 3, side, stride=stride)
    reference.load_state_dict({"weight": conv.standardized().detach(), "bias": conv.bias.detach()})
    torch.testing.assert_close(found, reference(x))
    assert found.shape[2:] == tuple(-(-length // stride) for length in range(n, n + dims))


def test_a_plain_convolution_does_not_pretend_to_pad_as_same() -> None:
    assert plain(Kernel(2, 1, 1, 3, same=True)).padding == (1, 1)
    with pytest.raises(ValueError, match="can't pad as SAME"):
        plain(Kernel(2, 1, 1, 3, 2, same=True))


@pytest.mark.parametrize("gain", [None, -0.7])
def test_a_scaled_sum_by_pencil(gain: float | None) -> None:
    skip, branch = torch.randn(2, 3, 2, 4, 5, generator=seeded(1))
    merge = ScaledAdd(0.2, skip_gain=gain is not None)
    if gain is None:
        assert list(merge.parameters()) == []
        torch.testing.assert_close(merge(skip, branch), skip + 0.2 * branch)
    else:
        assert torch.equal(merge(skip, branch), skip)
        merge.gain.data.fill_(gain)
        torch.testing.assert_close(merge(skip, branch), skip + 0.2 * gain * branch)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_squeeze_excite_is_its_formula(dims: int) -> None:
    layer = SqueezeExcite(6, 3, nn.ReLU(), doubled_product).double()
    for p in layer.parameters():
        nn.init.normal_(p, generator=seeded(1))
    x = torch.randn(2, 6, *(4, 3, 2)[:dims], generator=seeded(2), dtype=torch.float64)
    mean = x.flatten(2).mean(2)
    hidden = F.relu(mean @ layer.reduce.weight.T + layer.reduce.bias)
    weights = 2 / (1 + torch.exp(-(hidden @ layer.expand.weight.T + layer.expand.bias)))
    torch.testing.assert_close(layer(x).flatten(2), x.flatten(2) * weights[:, :, None])
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


@pytest.mark.parametrize("recipe", ["nf", "nf-agc", "nf-zc-swish"])
def test_activations_keep_a_standard_deviation_of_one(recipe: str) -> None:
    layer = ScaledActivation(Slots(find(recipe), native=nn.GELU), 1)
    y = layer(torch.randn(400_000, 1, generator=seeded(1)))
    assert y.std().item() == pytest.approx(1, abs=0.01)
    assert isinstance(layer.activation, type(find(recipe).activation(Place(1, native=nn.GELU))))


@pytest.mark.parametrize("recipe", ["nf", "nf-zc-swish"])
def test_the_variance_that_a_block_expects_is_that_which_it_gets(recipe: str) -> None:
    net = make(recipe, (3, 48, 48), depth="F3", width=32)
    expected = [block.spread**2 for block in net.blocks]
    first, second = [1, 1.04, 1.08, 1.12], [1.16, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.28]
    assert expected[:12] == pytest.approx(first + second)
    assert expected[12] == pytest.approx(1.32)
    # Measured where noise is not averaged over space yet, which costs it three quarters.
    found: list[float] = []
    for block in net.blocks[:4]:
        block.merge.gain.data.fill_(1.0)
        block.register_forward_pre_hook(
            lambda block, args: found.append(args[0].var((0, 2, 3)).mean().item())
        )
    with torch.no_grad():
        net(torch.randn(16, 3, 48, 48, generator=seeded(2)))
    assert found == pytest.approx(expected[:4], rel=0.2)
    assert sorted(found) == found


def test_at_first_a_block_whose_shape_stays_is_the_identity() -> None:
    block = make().blocks[2]
    x = torch.randn(2, 16, 3, 3, generator=seeded(1))
    assert block.shortcut is None
    assert torch.equal(block(x), x)


def test_branches_are_dropped_by_their_number_and_nothing_by_default() -> None:
    net = make(stochastic_depth=0.24, dropout=0.2)
    assert [b.merge.drop.rate for b in net.blocks] == pytest.approx([0.02 * i for i in range(12)])
    assert not any(block.merge.drop.rescale for block in net.blocks)
    assert net.before_classifier.rate == 0.2
    assert make().before_classifier.rate == make().blocks[-1].merge.drop.rate == 0
    x = torch.randn(2, 1, 16, 16, generator=seeded(2))
    logits = []
    for seed in (1, 1, 2):
        seed_noise(net, seeded(seed))
        logits.append(net(x))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("width", [2, 5, 12, 100])
def test_a_width_scales_every_layer_and_rounds_only_the_stem(width: int) -> None:
    net = meta(0, width)
    channels = [max(1, width // 8), max(1, width // 4), width // 2, width]
    stem = [layer.weight for name, layer in net.stem.named_children() if "conv" in name]
    assert [len(weight) for weight in stem] == channels
    outputs = [len(block.branch.conv4.weight) for block in net.blocks]
    assert outputs == [width * factor for factor in [2] + 2 * [4] + 9 * [12]]
    assert {block.branch.conv2.weight.shape[1] for block in net.blocks} == {width}
    assert net.classifier.in_features == 24 * width


def test_auto_is_f0_at_its_published_width() -> None:
    knobs = resolve_auto(Experiment.from_flat({"network.kind": "nfnet", "recipe": "nf-agc"}))
    network = knobs.network
    assert (network.depth, network.width, network.stem_stride) == ("F0", 128, 4)
    assert (network.init, knobs.client.clip) == ("lecun", "agc:0.01")
    assert resolve_auto(knobs) == knobs
    assert SKELETONS["nfnet"].native is nn.GELU


@pytest.mark.parametrize(
    ("knobs", "recipe", "message"),
    [
        (
            {"kind": "nfnet", "depth": 20},
            "nf",
            "network.depth=20 does not fit network.kind=nfnet; use F0, F1, F2, F3, F4, F5, F6",
        ),
        (
            {"kind": "plainnet", "depth": "F0"},
            "nf",
            "network.depth=F0 does not fit network.kind=plainnet; use a number of layers",
        ),
        (
            {"kind": "nfnet", "width": 1},
            "nf",
            "width=1 is too small for an nfnet; it needs at least 2",
        ),
        (
            {"kind": "nfnet", "stem_stride": 2},
            "nf",
            "network.stem-stride=2 does not fit network.kind=nfnet; use 4",
        ),
        (
            {"kind": "nfnet"},
            "batchnorm",
            "recipe=batchnorm does not fit network.kind=nfnet; it fits cnn, efficientnet, ffnn, "
            "plainnet, resnet, resnet-v2, vit",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(knobs, recipe: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"fit|too small") as error:
        build(Network(**knobs), recipe, (1, 8, 8), 10, seeded(1))
    assert str(error.value) == message
