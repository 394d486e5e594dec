import pytest
import torch
from torch import nn

from fl.config import Network
from fl.nn import Place, build, find, seed_noise
from fl.nn.architectures.vit import Attention, Block, Patches
from fl.nn.layers.activations import GALU, SALU, scalars
from fl.nn.layers.merges import Merge
from fl.nn.layers.normalizers.groups import TokenNorm
from fl.nn.slots import Slots


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(module: nn.Module) -> nn.Module:
    for seed, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=seeded(seed))
    return module.double()


def make(recipe: str = "layernorm", shape=(3, 32, 32), classes: int = 10, **knobs) -> nn.Module:
    return build(Network(kind="vit", **knobs), recipe, shape, classes, seeded(1))


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (128, 2), (192, 3)])
def test_a_block_is_torchs_encoder_layer(channels: int, heads: int) -> None:
    slots = Slots(find("layernorm"), native=nn.GELU)
    ours = filled(Block(slots, channels, drop=0.0))
    theirs = nn.TransformerEncoderLayer(
        channels, heads, 4 * channels, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    attention, mlp = ours.attention.heads, ours.mlp.layers
    theirs.self_attn.in_proj_weight = attention.queries_keys_values.weight
    theirs.self_attn.in_proj_bias = attention.queries_keys_values.bias
    theirs.self_attn.out_proj = attention.projection
    theirs.linear1, theirs.linear2 = mlp.widen, mlp.narrow
    for norm, other in ((ours.attention.norm, theirs.norm1), (ours.mlp.norm, theirs.norm2)):
        other.load_state_dict(norm.state_dict())
    x = torch.randn(2, channels, 5, dtype=torch.float64, generator=seeded(1))
    torch.testing.assert_close(ours(x), theirs(x.mT).mT)


@pytest.mark.parametrize(
    ("channels", "heads"), [(1, 1), (64, 1), (127, 1), (128, 2), (160, 2), (192, 3), (193, 1)]
)
def test_heads_divide_the_channels(channels: int, heads: int) -> None:
    assert Attention(channels).heads == heads


def test_patches_are_a_linear_layer_of_their_pixels_in_order() -> None:
    patches = filled(Patches((2, 4, 6), 5, side=2))
    image = torch.randn(1, 2, 4, 6, dtype=torch.float64, generator=seeded(1))
    tokens = patches(image)
    assert tokens.shape == (1, 5, patches.tokens) == (1, 5, 6)
    weight, bias = patches.conv.weight.flatten(1), patches.conv.bias
    for token, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
        pixels = image[0, :, row : row + 2, column : column + 2].flatten()
        torch.testing.assert_close(tokens[0, :, token], weight @ pixels + bias)


@pytest.mark.parametrize("space", [(9,), (5, 8), (5, 8, 7)])
def test_zeros_follow_a_side_that_does_not_fit(space: tuple[int, ...]) -> None:
    patches = filled(Patches((1, *space), 3, side=4))
    image = torch.randn(1, 1, *space, dtype=torch.float64, generator=seeded(1))
    longer = torch.zeros(1, 1, *(-(-side // 4) * 4 for side in space), dtype=torch.float64)
    longer[(..., *(slice(side) for side in space))] = image
    torch.testing.assert_close(patches(image), patches(longer))
    assert patches(image).shape[2] == patches.tokens


def test_auto_is_six_blocks_of_192_channels_and_patches_of_side_4() -> None:
    # Patches 48·192 + 192; 64 positions; per block two norms, 4·192² + 4·192 of attention and
    # 8·192² + 5·192 of MLP; a norm; a classifier.
    w = 192
    block = 4 * w + (4 * w * w + 4 * w) + (8 * w * w + 5 * w)
    expected = (48 * w + w) + 64 * w + 6 * block + 2 * w + (10 * w + 10)
    assert sum(p.numel() for p in make().parameters()) == expected


def test_positions_tell_patches_apart_and_nothing_else_does() -> None:
    net = make(depth=2, width=8, shape=(1, 4, 8)).double()
    images = torch.randn(3, 1, 4, 8, dtype=torch.float64, generator=seeded(2))
    swapped = images.roll(4, dims=3)
    assert not torch.allclose(net(images), net(swapped))
    nn.init.zeros_(net.positions.weight)
    torch.testing.assert_close(net(images), net(swapped))


def test_positions_are_drawn_from_the_generator_and_small() -> None:
    drawn = make(shape=(1, 64, 64)).positions.weight
    assert drawn.std().item() == pytest.approx(0.02, rel=0.03)  # 49,152 values
    other = build(Network(kind="vit"), "layernorm", (1, 64, 64), 10, seeded(2))
    assert not torch.equal(drawn, other.positions.weight)


def test_every_norm_is_layernorm_over_the_channels_of_a_token() -> None:
    norms = [layer for layer in make(depth=2, width=8).modules() if isinstance(layer, nn.LayerNorm)]
    assert len(norms) == 5
    assert all(type(norm) is TokenNorm for norm in norms)
    assert type(find("layernorm").norm(Place(8))) is nn.GroupNorm


def test_salunet_has_galu_for_gelu_and_neutral_scalars() -> None:
    net = make("salunet", depth=2, width=8)
    found = [type(layer) for layer in net.modules() if isinstance(layer, SALU)]
    assert found == [SALU, SALU, GALU] * 2 + [SALU]
    assert all(p.item() == 0 for name, p in net.named_parameters() if name in scalars(net))


def test_stochastic_depth_grows_to_its_full_share_in_the_last_block() -> None:
    net = make(depth=4, width=8, stochastic_depth=0.4)
    shares = [(block.first_merge.drop.rate, block.second_merge.drop.rate) for block in net.blocks]
    assert shares == [pytest.approx((share, share)) for share in (0.1, 0.2, 0.3, 0.4)]


def test_a_dropped_branch_is_the_identity() -> None:
    net = make(depth=1, width=8, stochastic_depth=0.999999)
    seed_noise(net, seeded(1))
    x = torch.randn(2, 8, 5, generator=seeded(2))
    assert torch.equal(net.blocks[0](x), x)
    assert not torch.equal(net.eval().blocks[0](x), x)


def test_merges_see_channels_second() -> None:
    net, seen = make("gelu", depth=2, width=8), []
    for layer in net.modules():
        if isinstance(layer, Merge):
            layer.register_forward_hook(lambda _, arrived, merged: seen.append(merged.shape))
    net(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 8, 64)] * 4
