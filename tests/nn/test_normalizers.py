import pytest
import torch
from torch import nn

from fl.nn.normalizers import BatchNorm, group_norm, layer_norm

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


@pytest.mark.parametrize(("norm", "groups"), [(group_norm, 4), (layer_norm, 1)])
def test_an_image_is_normalized_by_itself(norm, groups: int) -> None:
    x = 3 * torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1)) + 1
    y = norm(8)(x).view(2, groups, -1)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, groups), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, groups), atol=1e-4, rtol=0)
