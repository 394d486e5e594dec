"""ResNet-v2 and NF-ResNet: a block's formula, and how far the signal spreads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fl.config import Network
from fl.nn import build, seed_noise
from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.gains import gain
from fl.nn.layers.merges import Merge, ScaledAdd
from fl.nn.layers.pools import AveragePool


def make(recipe: str, depth: int = 8, width: int = 4, **knobs) -> nn.Module:
    network = Network(kind="resnet-v2", depth=depth, width=width, stem_stride=1, **knobs)
    return build(network, recipe, (3, 32, 32), 10, torch.Generator().manual_seed(1))


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_nf_block_starts_as_its_shortcut_and_other_rows_do_not() -> None:
    x = normal(2, 4, 6, 6)
    block = make("nf").blocks[0]
    assert torch.equal(block(x), x)
    assert not torch.equal(make("none").blocks[0](x), x)


def open_branches(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, StandardizedConv):
            nn.init.ones_(layer.gain)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 3))
def test_average_pool_is_the_mean_of_what_is_there(space: list[int], side: int) -> None:
    x = normal(1, 2, *space).double()
    expected = x
    for axis in range(2, x.ndim):
        parts = expected.split(side, dim=axis)
        # Means of means are means where all squares along an axis are cut alike, as they are.
        expected = torch.stack([part.mean(axis) for part in parts], dim=axis)
    assert torch.allclose(AveragePool(side)(x), expected)


def test_a_nf_block_is_its_formula() -> None:
    net = make("nf", depth=14)
    open_branches(net)
    x, block = normal(2, 4, 6, 6), net.blocks[1]
    out = x.relu() / 1.04**0.5
    expected = x + 0.2 * block.rest[0].conv(block.conv(out).relu())
    assert torch.allclose(block(x), expected, atol=1e-6)
    x, block = normal(2, 4, 6, 6), net.blocks[2]
    out = x.relu() / 1.08**0.5
    shortcut = block.shortcut.conv(nn.functional.avg_pool2d(out, 2))
    expected = shortcut + 0.2 * block.rest[0].conv(block.conv(out).relu())
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_probes_see_the_branch_before_it_is_weighed_or_dropped() -> None:
    net = make("nf", stochastic_depth=0.9)
    open_branches(net)
    seed_noise(net, torch.Generator().manual_seed(1))
    seen = []
    for layer in net.modules():
        if isinstance(layer, Merge):
            layer.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    x = normal(8, 4, 6, 6)
    block = net.blocks[0]
    block.train()(x)
    out = block.activation(x)
    assert torch.equal(seen[0], block.rest(block.conv(out)))
    assert isinstance(block.merge, ScaledAdd)


def test_expected_spread_grows_by_alpha_in_squares_and_starts_again_after_a_transition() -> None:
    net = make("nf", depth=20)
    found = [block.spread**2 for block in net.blocks]
    assert found == pytest.approx([1, 1.04, 1.08, 1.12, 1.04, 1.08, 1.12, 1.04, 1.08])
    assert {block.spread for block in make("none", depth=20).blocks} == {1}


@torch.no_grad()
def spreads(net: nn.Module, images: Tensor) -> list[float]:
    """Return the root of the mean variance of a channel in front of every block and at the end."""
    x, found = net.stem(images), []
    for block in (*net.blocks, nn.Identity()):
        found.append(x.var((0, 2, 3)).mean().sqrt().item())
        x = block(x)
    return found


@pytest.mark.parametrize("recipe", ["nf", "nf-zc-swish"])
def test_an_nf_resnet_spreads_as_expected_and_an_unnormalized_one_much_more(recipe: str) -> None:
    """The law of arXiv 2101.08692, section 3, at first, but with the branches' gains at 1.

    γ is in the stem's weights, too, where images are no activations: images of spread 1/γ make
    up for it. Only stages are compared, because behind a transition the spread is less than its
    expectation: an average pool of four independent pixels halves it. The tolerance is for
    the zeros that pad (about -2 %) and a finite width: seeds 1 to 5 give -1.7 % to -3.8 %.
    """
    net = make(recipe, depth=38, width=32)
    open_branches(net)
    images = normal(16, 3, 32, 32) / gain(net.blocks[0].activation)
    found = spreads(net, images)[:7]
    expected = [block.spread for block in net.blocks[:7]]
    assert found == pytest.approx(expected, rel=0.06)
    plain = spreads(make("none", depth=38, width=32), normal(16, 3, 32, 32))[:7]
    assert plain[-1] / plain[0] > 3 * expected[-1] / expected[0]


def test_a_dropped_branch_leaves_the_skip_and_others_are_not_made_up_for() -> None:
    merge = ScaledAdd(0.2, rate=0.5)
    seed_noise(merge, torch.Generator().manual_seed(1))
    skip, branch = normal(64, 4, 2, 2), normal(64, 4, 2, 2, seed=2)
    merged = merge.train()(skip, branch)
    dropped = (merged == skip).flatten(1).all(1)
    assert 20 < dropped.sum() < 44  # 32, and three standard deviations
    assert torch.equal(merged[~dropped], (skip + 0.2 * branch)[~dropped])
    assert torch.equal(merge.eval()(skip, branch), skip + 0.2 * branch)
