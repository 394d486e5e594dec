import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fl.config import Client, Experiment, Network
from fl.nn import build, resolve_auto
from fl.training import step
from fl.training.loop import train
from fl.training.parameters import FlatNetwork
from tests.fl.nn.parity import GOLDEN, values

CPU = torch.device("cpu")
BOUNDS = st.floats(1e-4, 10)
SCALES = st.floats(-12, 6).map(lambda power: 10.0**power)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.01, 50))
def test_clipping_by_norm_is_torch_s(values, bound):
    gradient = torch.tensor(values, dtype=torch.float64)
    parameter = nn.Parameter(gradient.clone())
    parameter.grad = gradient.clone()
    norm = nn.utils.clip_grad_norm_([parameter], bound)
    assert step.by_norm(gradient.clone(), None) == (norm, None)
    assert step.by_norm(gradient, bound) == (norm, norm + 1e-6 > bound)
    torch.testing.assert_close(gradient, parameter.grad)


def network(scale: float = 1.0, seed: int = 0) -> FlatNetwork:
    """Return a network with kernels, gains, biases, scalars and a dead filter, and a gradient."""
    g = torch.Generator().manual_seed(seed)
    recipe = Network(depth=4, width=4, per_channel=True)
    flat = FlatNetwork(build(recipe, "nf-zc-swish", (2, 8, 8), 3, g).double(), CPU)
    flat.gradient.copy_(torch.randn(len(flat.gradient), generator=g, dtype=torch.float64) * scale)
    kernel = flat.module.layers[1].conv.weight
    kernel.data[0], kernel.grad[1] = 0, 0
    return flat


def adaptive(flat: FlatNetwork, bound: float) -> step.Clipping:
    return step.make_clip(Client(clip=f"agc:{bound}"), flat, flat.weights)(flat.gradient)


def units(flat: FlatNetwork) -> list[tuple[str, Tensor, Tensor]]:
    """Return every unit's name, weights and gradient, as copies."""
    found = []
    for name, p in flat.module.named_parameters():
        if name.endswith(".weight"):
            found += [(name, w.clone(), g.clone()) for w, g in zip(p.data, p.grad, strict=True)]
        else:
            found.append((name, p.data.clone(), p.grad.clone()))
    return found


def formula(parameters: list[nn.Parameter], bound: float, eps: float = 1e-3) -> None:
    """Do as timm.utils.agc.adaptive_clip_grad (1.0.31) does, by gradients that autograd left."""
    for p in parameters:
        dims = tuple(range(1, p.ndim)) if p.ndim > 1 else None
        weight = p.detach().pow(2).sum(dims, keepdim=True).sqrt()
        gradient = p.grad.pow(2).sum(dims, keepdim=True).sqrt()
        largest = bound * weight.clamp(min=eps)
        clipped = p.grad * (largest / gradient.clamp(min=1e-6))
        p.grad = torch.where(gradient < largest, p.grad, clipped)


@settings(max_examples=25, deadline=None)
@given(SCALES, BOUNDS, st.integers(0, 99))
def test_adaptive_clipping_is_the_published_formula_one_parameter_at_a_time(scale, bound, seed):
    flat, twin = network(scale, seed), network(scale, seed)
    adaptive(flat, bound)
    # The authors' gains are vectors.
    squeezed = {
        name: nn.Parameter(p.data.squeeze() if name.endswith(".gain") else p.data)
        for name, p in twin.module.named_parameters()
    }
    for (name, p), original in zip(squeezed.items(), twin.module.parameters(), strict=True):
        p.grad = original.grad.view_as(p)
        if "classifier" not in name:
            formula([p], bound)
    expected = torch.cat([p.grad.flatten() for p in squeezed.values()])
    torch.testing.assert_close(flat.gradient, expected, rtol=1e-12, atol=0)


def test_adaptive_clipping_is_timm_s() -> None:
    golden = json.loads((GOLDEN / "agc.json").read_text(encoding="utf-8"))
    flat = FlatNetwork(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Linear(3, 4)).double(), CPU)
    for name, p in flat.module.named_parameters():
        p.data.copy_(values(name, tuple(p.shape)))
        p.grad.copy_(values(f"{name}.grad", tuple(p.shape)))
    before = flat.gradient.clone()
    adaptive(flat, 0.7)
    expected = torch.cat(
        [torch.tensor(numbers, dtype=torch.float64) for numbers in golden.values()]
    )
    assert golden.keys() == dict(flat.module.named_parameters()).keys()
    torch.testing.assert_close(flat.gradient, expected, rtol=1e-12, atol=0)
    assert 0 < int((flat.gradient == before).sum()) < len(before)


@settings(max_examples=25, deadline=None)
@given(SCALES, BOUNDS)
def test_no_unit_exceeds_its_bound_and_who_is_below_stays(scale, bound):
    flat = network(scale)
    before = units(flat)
    share, scaled = adaptive(flat, bound).share, []
    for (name, weights, gradient), (_, _, clipped) in zip(before, units(flat), strict=True):
        limit = bound * max(weights.norm().item(), 1e-3)
        if not name.startswith("classifier."):
            scaled.append(gradient.norm() >= limit)
        if name.startswith("classifier.") or gradient.norm() < limit:
            assert torch.equal(clipped, gradient)
        else:
            assert clipped.norm() <= limit * (1 + 1e-12)
            torch.testing.assert_close(clipped / clipped.norm(), gradient / gradient.norm())
    assert float(share) == pytest.approx(sum(scaled) / len(scaled))


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 1e6))
def test_above_the_bound_the_scale_of_a_gradient_says_nothing(factor):
    flat, larger = network(1e3), network(1e3 * factor)
    classifier = sum(p.numel() for p in flat.module.classifier.parameters())
    adaptive(flat, 0.01)
    adaptive(larger, 0.01)
    torch.testing.assert_close(larger.gradient[:-classifier], flat.gradient[:-classifier])


@pytest.mark.parametrize("clip", ["none", "norm:0.1", "agc:0.01"])
def test_the_norm_that_is_told_is_that_before_clipping(clip):
    flat = network()
    before = flat.gradient.clone()
    assert (
        step.make_clip(Client(clip=clip), flat, flat.weights)(flat.gradient).norm == before.norm()
    )
    assert torch.equal(flat.gradient, before) == (clip == "none")


def test_a_network_without_classifier_is_clipped_in_every_layer():
    flat = FlatNetwork(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), CPU)
    flat.gradient.fill_(100)
    adaptive(flat, 0.01)
    assert flat.gradient.abs().max() < 1


def test_adaptive_clipping_holds_every_step_of_training_to_its_bound():
    flat = network()
    start = units(flat)
    batch = torch.randn(4, 2, 8, 8, dtype=torch.float64) * 1e3, torch.tensor([0, 1, 2, 0])
    train(flat, [batch], Client(lr=1.0, clip="agc:0.01"), None)
    moved = [
        (name, ((after - before).norm() / max(before.norm().item(), 1e-3)).item())
        for (name, before, _), (_, after, _) in zip(start, units(flat), strict=True)
    ]
    hidden = [share for name, share in moved if not name.startswith("classifier.")]
    assert max(hidden) == pytest.approx(0.01)
    assert max(share for _, share in moved) > 0.02


@pytest.mark.parametrize(
    ("recipe", "clip", "expected"),
    [
        ("nf-agc", "auto", "agc:0.01"),
        ("nf-agc", "norm:1", "norm:1"),
        ("nf-agc", "none", "none"),
        ("nf", "auto", "norm:5"),
        ("nf", "agc:0.1", "agc:0.1"),
    ],
)
def test_a_recipe_s_clip_counts_where_the_knob_is_auto(recipe, clip, expected):
    knobs = Experiment.from_flat({"recipe": recipe, "client.clip": clip})
    assert resolve_auto(knobs).client.clip == expected
