from functools import partial

import pytest
import torch
from torch import nn

from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.layers.normalizers.groups import InstanceNorm, TokenNorm, group_norm, layer_norm
from fl.nn.layers.normalizers.statistics import fixed_statistics, forget_statistics

CHANNELS = 5


@pytest.mark.parametrize(
    ("torchs", "shape"),
    [
        (nn.BatchNorm1d, (4, CHANNELS)),
        (nn.BatchNorm1d, (2, CHANNELS, 6)),
        (nn.BatchNorm2d, (1, CHANNELS, 3, 4)),
        (nn.BatchNorm3d, (2, CHANNELS, 3, 2, 2)),
    ],
)
def test_is_torchs_batch_norm(torchs: type[nn.Module], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    ours, theirs = BatchNorm(CHANNELS), torchs(CHANNELS)
    for norm in (ours, theirs):
        nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(2))
        nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(3))
    for _ in range(3):
        x = 3 * torch.randn(shape, generator=generator) + 1
        x, same = x.requires_grad_(), x.clone().detach().requires_grad_()
        assert torch.equal(ours(x), theirs(same))
        ours(x).square().sum().backward()
        theirs(same).square().sum().backward()
        assert torch.equal(x.grad, same.grad)
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert ours.running_mean.abs().min() > 0
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert ours.single_value_steps == 0


def test_state_is_four_vectors_that_can_be_averaged() -> None:
    state = BatchNorm(CHANNELS).state_dict()
    assert set(state) == {"weight", "bias", "running_mean", "running_var"}
    assert all(value.shape == (CHANNELS,) for value in state.values())
    assert all(value.is_floating_point() for value in state.values())


@pytest.mark.parametrize("space", [(), (1,), (1, 1), (1, 1, 1)])
def test_one_value_a_channel_uses_the_running_statistics(space: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    norm = BatchNorm(CHANNELS)
    norm(torch.randn(8, CHANNELS, *space, generator=generator))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(1, CHANNELS, *space, generator=generator).requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert norm.single_value_steps == 1
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())
    assert torch.equal(y, norm.eval()(x))
    assert norm.single_value_steps == 1, "evaluation is not a step"
    assert x.grad.abs().min() > 0
    norm.train()(torch.randn(2, CHANNELS, *space, generator=generator))
    assert norm.single_value_steps == 1, "two values have a variance"
    assert not torch.equal(before["running_mean"], norm.running_mean)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 3), (8, 4), (9, 3), (10, 2), (16, 4), (64, 4)],
)
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (9, 1), (16, 2)]
)
def test_two_groups_or_one(channels: int, groups: int) -> None:
    assert group_norm(channels, most=2).num_groups == groups


@pytest.mark.parametrize("groups", [1, 2, 8, 32])
def test_group_norm_is_its_formula_forward_and_backward(groups: int) -> None:
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    x, weight, bias = draw(3, 32, 2, 5), draw(32), draw(32)
    norm = group_norm(32, groups).double()
    norm.load_state_dict({"weight": weight, "bias": bias})
    x, plain = (x.clone().requires_grad_() for _ in range(2))
    rows = plain.reshape(3, groups, -1)
    mean = rows.mean(-1, keepdim=True)
    scaled = (rows - mean) / ((rows - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = scaled.reshape(x.shape) * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)
    found = norm(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (found**3).sum().backward()
    (expected**3).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("norm", "groups"), [(group_norm, 4), (layer_norm, 1), (InstanceNorm, 8)])
def test_an_image_is_normalized_by_itself(norm, groups: int) -> None:
    x = 3 * torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1)) + 1
    y = norm(8)(x).view(2, groups, -1)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, groups), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, groups), atol=1e-4, rtol=0)


@pytest.mark.parametrize("space", [(1,), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_instance_norm_of_one_pixel_leaves_the_bias(batch: int, space: tuple[int, ...]) -> None:
    norm = InstanceNorm(2)
    nn.init.constant_(norm.bias, 0.5)
    x = torch.randn(batch, 2, *space, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = norm(x)
    y.sum().backward()
    torch.testing.assert_close(y, torch.full_like(x, 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.grad, torch.zeros_like(x), atol=1e-4, rtol=0)
    assert norm.bias.grad.tolist() == [batch, batch]


def test_token_norm_is_layer_norm_of_every_position() -> None:
    ours, theirs = TokenNorm(5), nn.LayerNorm(5)
    assert isinstance(layer_norm(5, tokens=True), TokenNorm)
    nn.init.uniform_(ours.weight, 0.5, 2, generator=torch.Generator().manual_seed(2))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1))
    for batch, token in ((0, 0), (2, 6), (1, 3)):
        torch.testing.assert_close(ours(x)[batch, :, token], theirs(x[batch, :, token]))


@pytest.mark.parametrize("space", [(), (4,), (3, 2)])
def test_batch_norm_without_scale_and_shift_has_them_at_one_and_zero(
    space: tuple[int, ...],
) -> None:
    bare, whole = BatchNorm(CHANNELS, affine=False), BatchNorm(CHANNELS)
    assert list(bare.parameters()) == []
    assert set(bare.state_dict()) == {"running_mean", "running_var"}
    x = torch.randn(6, CHANNELS, *space, generator=torch.Generator().manual_seed(1))
    assert torch.equal(bare(x), whole(x))
    assert torch.equal(bare.eval()(x), whole.eval()(x))
    forget_statistics(bare)
    assert not bare(torch.ones(1, CHANNELS, 1)).any()


def trained(norm: BatchNorm, x: torch.Tensor, fixed: bool) -> torch.Tensor:
    with fixed_statistics(norm, fixed):
        return norm.train()(x)


def test_fixed_statistics_stay_and_normalize_training() -> None:
    generator = torch.Generator().manual_seed(1)
    norm = nn.Sequential(BatchNorm(CHANNELS))[0]
    nn.init.uniform_(norm.running_mean, -1, 1, generator=generator)
    nn.init.uniform_(norm.running_var, 0.5, 2, generator=generator)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(3, CHANNELS, 4, generator=generator)
    y = trained(norm, x, fixed=True)
    mean, variance = (before[key].view(-1, 1) for key in ("running_mean", "running_var"))
    torch.testing.assert_close(y, (x - mean) / (variance + 1e-5).sqrt())
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())
    y.square().sum().backward()
    assert norm.weight.grad.all()
    assert norm.bias.grad.all()
    assert not torch.equal(trained(norm, x, fixed=False), y), "it is over after the block"
    assert not torch.equal(before["running_mean"], norm.running_mean)


def test_no_step_counts_as_one_of_a_single_value_where_statistics_are_fixed() -> None:
    norm, one = BatchNorm(CHANNELS), torch.ones(1, CHANNELS, 1)
    free, fixed = trained(norm, one, fixed=False), trained(norm, one, fixed=True)
    assert torch.equal(free, fixed)
    assert norm.single_value_steps == 1


def test_an_error_ends_the_fixing() -> None:
    norm = BatchNorm(CHANNELS)
    with pytest.raises(InterruptedError), fixed_statistics(norm):
        raise InterruptedError
    assert not norm.fixed
