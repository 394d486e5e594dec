"""BatchNorms that train by more than the batch: their formulas, and what they are at both ends."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.layers.normalizers.mixtures import FederatedBatchNorm, HybridBatchNorm
from fl.nn.layers.normalizers.renormalized import BatchRenorm
from fl.nn.layers.normalizers.statistics import fixed_statistics, forget_statistics

C = 3
SPACES = [(), (5,), (2, 3), (2, 1, 2)]


def filled(norm: nn.Module, seed: int = 1) -> nn.Module:
    """Return a layer in float64 with drawn scale, shift and statistics."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.rand, C, generator=generator, dtype=torch.float64)
    drawn = {name: draw() + 0.5 for name in ("weight", "bias", "running_mean", "running_var")}
    norm.double().load_state_dict({**norm.state_dict(), **drawn})
    return norm


def drawn(*space: int, batch: int = 4, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, C, *space, generator=generator, dtype=torch.float64) + 1


def result(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output, the gradients of Σ y³ by x, scale and shift, and the statistics after."""
    leaf = x.clone().requires_grad_()
    y = norm(leaf)
    found = torch.autograd.grad((y**3).sum(), [leaf, norm.weight, norm.bias])
    return [y, *found, norm.running_mean.clone(), norm.running_var.clone()]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("space", SPACES)
def test_hbn_is_its_formula_forward_and_backward(space: tuple[int, ...]) -> None:
    norm, x = filled(HybridBatchNorm(C)), drawn(*space)
    nn.init.normal_(norm.mixture, generator=torch.Generator().manual_seed(3))
    start = {name: value.clone() for name, value in norm.state_dict().items()}
    ours, plain = (x.clone().requires_grad_() for _ in range(2))
    leaves = [start[name].clone().requires_grad_() for name in ("weight", "bias", "mixture")]
    weight, bias, mixture = (leaf.view(-1, *(1,) * len(space)) for leaf in leaves)
    s = 1 / (1 + (-mixture).exp())
    axes = [0, *range(2, x.ndim)]
    mean = plain.mean(axes, keepdim=True)[0]
    variance = (plain - mean).square().mean(axes, keepdim=True)[0]
    shared = [start[name].view(s.shape) for name in ("running_mean", "running_var")]
    m, v = ((1 - s) * g + s * b for g, b in zip(shared, (mean, variance), strict=True))
    expected = weight * (plain - m) / (v + 1e-5).sqrt() + bias
    found = norm(ours)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((found**3).sum(), [ours, norm.weight, norm.bias, norm.mixture])
    theirs = torch.autograd.grad((expected**3).sum(), [plain, *leaves])
    same(list(mine), list(theirs))
    assert all(gradient.abs().min() > 0 for gradient in mine)


@pytest.mark.parametrize(("batch", "space"), [(4, (2, 3)), (4, ()), (1, (2,)), (1, ())])
def test_hbn_of_the_batch_alone_is_batch_norm(batch: int, space: tuple[int, ...]) -> None:
    norm, plain = filled(HybridBatchNorm(C)), filled(BatchNorm(C))
    nn.init.constant_(norm.mixture, 50.0)
    for seed in range(3):
        x = drawn(*space, batch=batch, seed=seed)
        same(result(norm, x), result(plain, x))
    assert norm.single_value_steps == plain.single_value_steps == 3 * (batch == 1 and not space)
    same([norm.eval()(x)], [plain.eval()(x)])


@pytest.mark.parametrize("space", SPACES)
def test_hbn_of_shared_statistics_alone_is_fbn_which_is_fixbn_that_notes_down(space) -> None:
    hybrid, shared, plain = (filled(m(C)) for m in (HybridBatchNorm, FederatedBatchNorm, BatchNorm))
    nn.init.constant_(hybrid.mixture, -50.0)
    moving = filled(BatchNorm(C))
    for seed in range(3):  # statistics move, and what is trained by does not
        x = drawn(*space, seed=seed)
        found = result(shared, x)
        same(result(hybrid, x), found)
        with fixed_statistics(plain):
            same(found[:4], result(plain, x)[:4])
        same(found[4:], result(moving, x)[4:])
    assert not torch.equal(shared.running_mean, shared.held_mean)


def test_examples_do_not_see_each_other_in_fbn() -> None:
    norm, x = filled(FederatedBatchNorm(C)), drawn(2).requires_grad_()
    (gradient,) = torch.autograd.grad(norm(x)[0].square().sum(), x)
    assert gradient[0].abs().min() > 0
    assert not gradient[1:].any()


@pytest.mark.parametrize("kind", [FederatedBatchNorm, HybridBatchNorm])
def test_a_round_trains_by_the_statistics_that_it_began_with(kind) -> None:
    norm, x = filled(kind(C)), drawn(2, 2)
    first = norm(x)
    assert torch.equal(norm(x), first), "what it notes down does not change the round"
    norm.hold_statistics()
    second = norm(x)
    assert not torch.allclose(second, first)
    again = filled(kind(C))
    again.load_state_dict(norm.state_dict())
    assert not torch.allclose(again(x), second), "since then, statistics have moved once more"
    norm.hold_statistics()
    assert torch.equal(again(x), norm(x))


@pytest.mark.parametrize("kind", [FederatedBatchNorm, HybridBatchNorm])
def test_without_statistics_it_is_batch_norm(kind) -> None:
    norm, plain = filled(kind(C)), filled(BatchNorm(C))
    for one in (norm, plain):
        forget_statistics(one)
    x = drawn(2)
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_what_travels_is_batch_norm_s_state_and_the_mixture() -> None:
    names = set(BatchNorm(C).state_dict())
    assert set(FederatedBatchNorm(C).state_dict()) == names
    assert set(HybridBatchNorm(C).state_dict()) == names | {"mixture"}
    assert HybridBatchNorm(C).mixture.tolist() == [0.0] * C


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("bounds", [(3.0, 5.0), (1.2, 0.3)])
def test_batch_renorm_is_its_formula_forward_and_backward(space, bounds) -> None:
    norm, x = filled(BatchRenorm(C, *bounds)), drawn(*space)
    start = {name: value.clone() for name, value in norm.state_dict().items()}
    ours, plain = (x.clone().requires_grad_() for _ in range(2))
    leaves = [start[name].clone().requires_grad_() for name in ("weight", "bias")]
    view = (-1, *(1,) * len(space))
    axes = [0, *range(2, x.ndim)]
    mean = plain.mean(axes, keepdim=True)[0]
    of_batch = ((plain - mean).square().mean(axes, keepdim=True)[0] + 1e-5).sqrt()
    sigma = (start["running_var"].view(view) + 1e-5).sqrt()
    r = (of_batch / sigma).detach().clamp(1 / bounds[0], bounds[0])
    shift = (mean.detach() - start["running_mean"].view(view)) / sigma
    d = shift.clamp(-bounds[1], bounds[1])
    weight, bias = (leaf.view(view) for leaf in leaves)
    expected = weight * ((plain - mean) / of_batch * r + d) + bias
    found = norm(ours)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((found**3).sum(), [ours, norm.weight, norm.bias])
    same(list(mine), list(torch.autograd.grad((expected**3).sum(), [plain, *leaves])))


def test_batch_renorm_without_room_is_batch_norm() -> None:
    norm, plain = filled(BatchRenorm(C, 1.0, 0.0)), filled(BatchNorm(C))
    for seed, (batch, space) in enumerate([(4, (2, 3)), (4, ()), (1, (2,)), (1, ())]):
        x = drawn(*space, batch=batch, seed=seed)
        same(result(norm, x), result(plain, x))
    assert norm.single_value_steps == plain.single_value_steps == 1


def test_batch_renorm_without_bounds_returns_what_evaluation_would() -> None:
    norm, x = filled(BatchRenorm(C, float("inf"), float("inf"))), drawn(2, 3)
    expected = filled(BatchRenorm(C)).eval()(x)
    same([norm(x)], [expected])
    assert not torch.allclose(filled(BatchRenorm(C, 1.1, 0.1))(x), expected)


@pytest.mark.parametrize("bounds", [(0.5, 5.0), (3.0, -1.0), (float("nan"), 5.0)])
def test_bounds_that_leave_nothing_are_refused(bounds) -> None:
    with pytest.raises(ValueError, match="expected 1 or more, and 0 or more"):
        BatchRenorm(C, *bounds)
