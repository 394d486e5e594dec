import pytest
import torch

from fl.config import Network
from fl.nn import build, seed_noise
from fl.nn.architectures.efficientnet import EfficientNet
from fl.nn.layers.merges import Merge
from fl.nn.layers.noise import Dropout
from fl.nn.layers.squeeze import SqueezeExcite


def make(
    recipe: str = "batchnorm", *, channels: int = 3, side: int = 32, classes: int = 10, **size
):
    network = Network(kind="efficientnet", **size)
    generator = torch.Generator().manual_seed(1)
    return build(network, recipe, (channels, side, side), classes, generator)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def outputs(net: EfficientNet, images: torch.Tensor) -> list[torch.Tensor]:
    """Return what comes out of the stem, every block and the head."""
    found = []
    for part in (net.stem, *net.blocks, net.head):
        part.register_forward_hook(lambda module, inputs, output: found.append(output))
    with torch.no_grad():
        net(images)
    return found


B0 = [  # channels in and out, expansion, kernel, first stride, blocks: arXiv 1905.11946, table 1
    (32, 16, 1, 3, 1, 1),
    (16, 24, 6, 3, 2, 2),
    (24, 40, 6, 5, 2, 2),
    (40, 80, 6, 3, 2, 3),
    (80, 112, 6, 5, 1, 3),
    (112, 192, 6, 5, 2, 4),
    (192, 320, 6, 3, 1, 1),
]


def test_b0_has_as_many_parameters_as_timm_s() -> None:
    assert count(make(classes=1000)) == 5_288_548 == by_formula(32, 3, 1000)


def by_formula(width: int, channels: int, classes: int) -> int:
    """Return the parameters with batch normalization, for widths that are multiples of 4."""

    def block(i: int, o: int, expansion: int, side: int) -> int:
        h = expansion * i
        expand = (i * h + 2 * h) * (expansion > 1)
        squeeze = 2 * h * -(-i // 4) + -(-i // 4) + h
        return expand + (side**2 * h + 2 * h) + squeeze + (h * o + 2 * o)

    total, w = 9 * channels * width + 2 * width, width / 32
    for inputs, outputs, expansion, side, _, repeats in B0:
        i, o = int(w * inputs), int(w * outputs)
        total += block(i, o, expansion, side) + (repeats - 1) * block(o, o, expansion, side)
    head = int(w * 1280)
    return total + int(w * 320) * head + 2 * head + (head + 1) * classes


@pytest.mark.parametrize("width", [4, 8, 20, 32, 40])
def test_parameters_by_formula(width: int) -> None:
    assert count(make(width=width, channels=1)) == by_formula(width, 1, 10)


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        (1, [1, 1, 1, 2, 3, 4, 6, 10, 40]),
        (4, [4, 2, 3, 5, 10, 14, 24, 40, 160]),
        (8, [8, 4, 6, 10, 20, 28, 48, 80, 320]),
        (33, [33, 17, 25, 42, 83, 116, 198, 330, 1320]),
        (64, [64, 32, 48, 80, 160, 224, 384, 640, 2560]),
    ],
)
def test_width_scales_all_channels_and_rounds_up(width: int, channels: list[int]) -> None:
    net = make(width=width, depth=7)
    convs = [net.stem.conv, *(block.branch.project.conv for block in net.blocks), net.head.conv]
    assert [conv.out_channels for conv in convs] == channels


def test_resolutions_and_channels_are_those_of_the_paper() -> None:
    # Table 1 has the resolutions of inputs: 112 of stage 2 is the stem's output, and so on.
    found = outputs(make("swish", side=224, width=8), torch.zeros(1, 3, 224, 224))
    expected = [(8, 112)]
    for (_, channels, _, _, _, blocks), side in zip(B0, (112, 56, 28, 14, 14, 7, 7), strict=True):
        expected += [(channels // 4, side)] * blocks
    assert [(x.shape[1], x.shape[2]) for x in found] == [*expected, (320, 7)]
    assert all(x.shape[2] == x.shape[3] for x in found)


@pytest.mark.parametrize(("stride", "sides"), [(1, [31, 16, 8, 4, 2]), (2, [16, 8, 4, 2, 1]),
                                                (4, [8, 4, 2, 1, 1])])  # fmt: skip
def test_strides_of_the_stem(stride: int, sides: list[int]) -> None:
    net = make("swish", side=31, width=4, depth=7, stem_stride=stride)
    found = outputs(net, torch.zeros(1, 3, 31, 31))
    assert [found[i].shape[2] for i in (0, 2, 3, 4, 6)] == sides


@pytest.mark.parametrize(
    ("depth", "repeats"),
    [
        (7, [1, 1, 1, 1, 1, 1, 1]),
        (8, [1, 1, 1, 1, 1, 2, 1]),
        (10, [1, 1, 1, 2, 2, 2, 1]),
        (13, [1, 2, 2, 2, 2, 3, 1]),
        (15, [1, 2, 2, 3, 3, 3, 1]),
        (16, [1, 2, 2, 3, 3, 4, 1]),
        (23, [2, 3, 3, 4, 4, 5, 2]),  # B1 and B2, d = 1.1 and 1.2
        (26, [2, 3, 3, 5, 5, 6, 2]),  # B3, d = 1.4
        (55, [4, 7, 7, 10, 10, 13, 4]),  # B7, d = 3.1
    ],
)
def test_depth_is_blocks_in_the_paper_s_proportions(depth: int, repeats: list[int]) -> None:
    net = make(width=4, depth=depth)
    kernels = [block.branch.depthwise.conv.kernel_size[0] for block in net.blocks]
    expected = [s for (*_, s, _, _), r in zip(B0, repeats, strict=True) for _ in range(r)]
    assert kernels == expected
    channels = [block.branch.project.conv.out_channels for block in net.blocks]
    assert [channels.count(o // 8) for _, o, *_ in B0] == repeats


@pytest.mark.parametrize(
    ("depth", "near"), [(1, "7"), (6, "7"), (9, "8 or 10"), (12, "10 or 13"), (22, "16 or 23")]
)
def test_an_impossible_depth_is_one_line(depth: int, near: str) -> None:
    with pytest.raises(ValueError, match="depth=") as error:
        make(depth=depth)
    message = f"depth={depth} blocks do not fill an efficientnet's stages; try {near}"
    assert str(error.value) == message


def test_shortcuts_are_where_the_shape_stays() -> None:
    merges = [block.merge is not None for block in make(width=4).blocks]
    assert merges == [r > 0 for *_, repeats in B0 for r in range(repeats)]


def test_a_block_whose_branch_is_silent_is_its_shortcut() -> None:
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    for recipe, factor in (("swish", 1.0), ("selfnorm", 1.0), ("selfnorm-mp", 0.5**0.5)):
        block = make(recipe, width=4).blocks[2]
        torch.nn.init.zeros_(block.branch.project.conv.weight)
        torch.nn.init.zeros_(block.branch.project.conv.bias)
        torch.testing.assert_close(block(x), x * factor)


def test_expansion_and_squeeze_follow_the_block_s_inputs() -> None:
    net = make("swish", width=32)
    for block, inputs, expansion in ((net.blocks[0], 32, 1), (net.blocks[3], 24, 6)):
        squeeze = block.branch.squeeze
        assert hasattr(block.branch, "expand") == (expansion > 1)
        assert squeeze.reduce.weight.shape == (inputs // 4, expansion * inputs)
        assert block.branch.depthwise.conv.groups == expansion * inputs
        assert not hasattr(block.branch.project, "activation"), "a linear bottleneck"


@pytest.mark.parametrize("recipe", ["swish", "selfnorm-mp", "salunet"])
@pytest.mark.parametrize("space", [(5,), (2, 3), (2, 3, 2)])
def test_a_gate_of_one_half_scales_every_channel(recipe: str, space: tuple[int, ...]) -> None:
    squeeze: SqueezeExcite = make(recipe, width=8).blocks[0].branch.squeeze
    torch.nn.init.zeros_(squeeze.expand.weight)
    x = torch.randn(2, 8, *space, generator=torch.Generator().manual_seed(2))
    factor = 0.5**0.5 if recipe == "selfnorm-mp" else 0.5
    torch.testing.assert_close(squeeze(x), x * factor)


def test_squeeze_excite_is_its_formula() -> None:
    squeeze = make("none", width=8).blocks[0].branch.squeeze.double()
    x = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    a, b, c, d = (p.detach() for p in squeeze.parameters())
    with torch.no_grad():
        b.add_(0.3)
        gate = 1 / (1 + torch.exp(-(torch.clamp(x.mean((2, 3)) @ a.T + b, min=0) @ c.T + d)))
        torch.testing.assert_close(squeeze(x), x * gate[:, :, None, None])


def test_rates_of_dropout_and_stochastic_depth() -> None:
    net = make("swish", width=4, dropout=0.2, stochastic_depth=0.32)
    dropped = {i: block.merge.drop.rate for i, block in enumerate(net.blocks) if block.merge}
    expected = {i: 0.32 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)}
    assert dropped == pytest.approx(expected)
    layers = [type(layer) for layer in net.children()]
    assert layers[-2] is Dropout
    assert net.before_classifier.rate == 0.2
    assert net.classifier.in_features == 160


def test_every_block_merges_behind_its_stochastic_depth() -> None:
    block = make("swish", width=4).blocks[2]
    block.merge.drop.rate = 0.999
    seed_noise(block, torch.Generator().manual_seed(1))
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(block(x), x), "all branches are dropped"
    assert not torch.equal(block.eval()(x), x)
    assert isinstance(block.merge, Merge)


def spread(recipe: str, init: str = "auto") -> list[float]:
    """Return the mean over channels of the variance (ACV) behind the stem, each block, the head."""
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    found = outputs(make(recipe, side=128, width=8, init=init), images)
    return [x.var((0, 2, 3), correction=0).mean().item() for x in found]


def test_signals_of_self_normalizing_networks_survive_b0_s_depth() -> None:
    # Seeds 1 and 2, eight images a batch, found: selfnorm 0.04 to 1.1, its MP version 0.04 to 1.1;
    # swish ends at 4e-6 and 3e-7, and from weights of variance 1/fan_in at 7e-14.
    for recipe in ("selfnorm", "selfnorm-mp"):
        assert all(0.01 < variance < 3 for variance in spread(recipe)), recipe
    assert spread("swish")[-1] < 1e-4
    assert spread("swish", "lecun")[-1] < 1e-10


def test_batch_normalization_adds_one_unit_of_variance_a_block() -> None:
    # A branch ends in a normalizer, so that ACV counts the blocks of a stage.
    found = spread("batchnorm")[1:-1]
    stages = [r + 1 for *_, repeats in B0 for r in range(repeats)]
    assert found == pytest.approx(stages, rel=0.2)
