import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn
from torch.func import functional_call, vmap

from fl.nn.initialization import initialize
from fl.nn.layers.activations import GALU, SALU, SWALU, Activation, Form, ZCSwish, scalars
from fl.nn.layers.unset import unset
from fl.nn.recipe import Place
from fl.nn.recipes import RECIPES

CHANNELS = 3
LAYERS = {
    f"{name} {slot} {'channel' if per_channel else 'layer'}": getattr(row, slot)(
        Place(CHANNELS, per_channel)
    )
    for name, row in RECIPES.items()
    for slot in ("norm", "activation")
    for per_channel in (False, True)
} | {"galu": GALU(1.0, 1.0), "galu channel": GALU(1.0, 1.0, CHANNELS, True)}
ACTIVATIONS = {name: layer for name, layer in LAYERS.items() if isinstance(layer, Activation)}

unhurried = settings(deadline=None)  # a busy machine is no failure
positive = st.floats(0.1, 10)
numbers = st.floats(-20, 20)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1)


def zc_swish(center: float, log_beta: float, scale: float, form: Form = "anchored") -> ZCSwish:
    layer = ZCSwish(1, form=form).double()
    with torch.no_grad():
        layer.center.fill_(center)
        layer.log_beta.fill_(log_beta)
        layer.scale.fill_(scale)
    return layer


def over_normal(layer: nn.Module) -> tuple[float, float, float]:
    """Return mean and variance of f, and the mean of f'², over N(0, 1), by the trapezoid rule."""
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64).requires_grad_()
    density = torch.exp(-(x.detach() ** 2) / 2) / math.sqrt(2 * math.pi)
    y = layer.double()(x.view(-1, 1)).view(-1)
    slope = torch.autograd.grad(y.sum(), x)[0]
    mean, square, steep = (torch.trapezoid(v * density, x).item() for v in (y, y**2, slope**2))
    return mean, square - mean**2, steep


# Through the corrections of BatchRenorm no gradient flows, so its own are no slopes.
@pytest.mark.parametrize("name", [name for name in LAYERS if "batch-renorm" not in name])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    layer = LAYERS[name].double()
    parameters = {key: p.detach().clone().requires_grad_() for key, p in layer.named_parameters()}
    x = torch.linspace(-3.1, 3.4, 4 * CHANNELS, dtype=torch.float64).view(2, CHANNELS, 2)

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, dict(zip(parameters, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), *parameters.values()))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_huge_inputs_give_finite_values_and_gradients(name: str) -> None:
    layer = ACTIVATIONS[name].float()
    huge = 1e11 if isinstance(layer, GALU) else 1e30
    x = torch.tensor([-huge, -1e3, -1e-30, 0.0, 1e3, huge]).view(2, CHANNELS).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(t.grad).all() for t in (x, *layer.parameters()))


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if "channel" in name])
def test_one_scalar_a_channel_is_one_module_a_channel(name: str) -> None:
    layer = ACTIVATIONS[name].double()
    values = {key: p.detach() + torch.arange(CHANNELS) / 4 for key, p in layer.named_parameters()}
    x = torch.randn(
        2, CHANNELS, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    y = functional_call(layer, values, x)
    for c in range(CHANNELS):
        alone = functional_call(layer, {key: v[c] for key, v in values.items()}, x[:, c : c + 1])
        torch.testing.assert_close(y[:, c : c + 1], alone)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_vmap_over_clients_is_a_loop_over_clients(name: str) -> None:
    layer = ACTIVATIONS[name].double()
    generator = torch.Generator().manual_seed(1)
    values = {
        key: torch.stack([p.detach() + shift / 4 for shift in range(3)])
        for key, p in layer.named_parameters()
    }
    x = torch.randn(3, 2, CHANNELS, 4, dtype=torch.float64, generator=generator)
    together = vmap(lambda v, x: functional_call(layer, v, x))(values, x)
    for k in range(3):
        alone = functional_call(layer, {key: v[k] for key, v in values.items()}, x[k])
        torch.testing.assert_close(together[k], alone)


@unhurried
@given(center=st.floats(-5, 5), log_beta=st.floats(-2, 2), scale=st.floats(-3, 3))
def test_zc_swish_is_anchored_at_the_origin(center: float, log_beta: float, scale: float) -> None:
    for form, value in (("anchored", 0), ("gated", 0), ("shifted", -scale * center)):
        found = zc_swish(center, log_beta, scale, form)(double(0.0)).item()
        assert found == pytest.approx(value, abs=1e-12)


@unhurried
@given(x=numbers, c=st.floats(-5, 5), log_beta=st.floats(-2, 2), g=st.floats(-3, 3))
def test_zc_swish_is_its_formula(x: float, c: float, log_beta: float, g: float) -> None:
    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    beta = math.exp(log_beta)
    formulas = {
        "anchored": g * ((x - c) * sigmoid(beta * (x - c)) + c * sigmoid(-beta * c)),
        "gated": g * x * sigmoid(beta * (x - c)),
        "shifted": g * (x * sigmoid(beta * x) - c),
    }
    for form, expected in formulas.items():
        found = zc_swish(c, log_beta, g, form)(double(x)).item()
        assert found == pytest.approx(expected, abs=1e-10)


def test_zc_swish_with_neutral_scalars_is_swish() -> None:
    x = torch.linspace(-9, 9, 1000).view(10, 100)
    assert torch.equal(ZCSwish(100, center=0.0)(x), F.silu(x))
    assert torch.equal(ZCSwish(100, center=0.0, form="shifted")(x), F.silu(x))
    torch.testing.assert_close(ZCSwish(100, center=0.0, form="gated")(x), F.silu(x))


def test_shifted_zc_swish_starts_with_mean_zero() -> None:
    layer = ZCSwish(1, form="shifted")
    assert over_normal(layer)[0] == pytest.approx(0, abs=1e-8)
    assert layer.center.item() == pytest.approx(0.2066, abs=5e-5)


@pytest.mark.parametrize(
    ("center", "mean", "variance", "steepness"),
    [
        (0.0, 0.207, 0.314, 0.379),
        (-0.5, 0.189, 0.508, 0.567),
        (-1.0, 0.144, 0.717, 0.761),
        (-2.0, 0.044, 1.034, 1.048),
        (-3.0, -0.005, 1.136, 1.138),
        (1.0, 0.144, 0.072, 0.116),
    ],
)
def test_moments_of_zc_swish(center: float, mean: float, variance: float, steepness: float) -> None:
    # The expected numbers are from 4e6 samples, printed to three digits: within 0.002.
    found = over_normal(ZCSwish(1, center=center))
    assert found == pytest.approx((mean, variance, steepness), abs=2e-3)


@pytest.mark.parametrize(
    ("form", "mean", "variance", "slope", "steepness"),
    [("gated", 0.178, 0.470, 0.731, 0.528), ("shifted", 0.0, 0.314, 0.5, 0.379)],
)
def test_moments_of_the_other_forms_as_they_start(
    form: Form, mean: float, variance: float, slope: float, steepness: float
) -> None:
    # From 4e6 samples, as above.
    layer = ZCSwish(1, form=form)
    assert over_normal(layer) == pytest.approx((mean, variance, steepness), abs=2e-3)
    x = double(0.0).requires_grad_()
    assert torch.autograd.grad(layer(x), x)[0].item() == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize(
    ("layer", "gamma"),
    [
        (ZCSwish(1, center=-1.0), 1.181),
        (SALU(1.0, 1.0), 1.704),
        (SWALU(0.5, 0.5), 1.812),
        (GALU(1.0, 1.0), 1.733),
    ],
    ids=lambda value: type(value).__name__,
)
def test_spread_over_normal_inputs(layer: nn.Module, gamma: float) -> None:
    assert over_normal(layer)[1] ** -0.5 == pytest.approx(gamma, abs=3e-3)


@pytest.mark.parametrize(
    ("a", "b", "variance", "steepness"), [(1.0, 1.0, 0.344, 0.415), (2.0, 1.0, 0.909, 1.24)]
)
def test_moments_of_salu(a: float, b: float, variance: float, steepness: float) -> None:
    assert over_normal(SALU(a, b)) == pytest.approx((0, variance, steepness), abs=3e-3)


def test_selu_keeps_mean_0_and_variance_1() -> None:
    # Its constants solve these two equations (arXiv 1706.02515, equation 14).
    assert over_normal(nn.SELU())[:2] == pytest.approx((0, 1), abs=1e-6)


def deep(activation: type[nn.Module], width: int) -> tuple[float, float]:
    """Return mean and variance behind 40 linear layers of weights N(0, 1/width) and activations."""
    layers = [(unset(nn.Linear, width, width), activation()) for _ in range(40)]
    stack = nn.Sequential(*itertools.chain(*layers))
    generator = torch.Generator().manual_seed(1)
    initialize(stack, "lecun", generator)
    with torch.no_grad():
        y = stack(torch.randn(64, width, generator=generator))
    return y.mean().item(), y.var().item()


def test_deep_stacks_of_selu_and_unit_weights_keep_mean_0_and_variance_1() -> None:
    # A layer of n units turns variance 1 + δ into about 1 + 0.783·δ (by quadrature), plus sampling
    # noise of variance Var(selu²)/n = 1.503/n, in all σ² = 1.503/n / (1 - 0.783²) for an example.
    # The mean gains 0.089·δ, on top of noise of variance 1/n. Three deviations are allowed.
    width = 400
    sigma = (1.503 / width / (1 - 0.783**2)) ** 0.5
    mean, variance = deep(nn.SELU, width)
    assert mean == pytest.approx(0, abs=3 * (width**-0.5 + 0.089 * sigma))
    assert variance == pytest.approx(1, abs=3 * sigma)
    assert deep(nn.ReLU, width)[1] < 1e-9, "a half is lost a layer, and 2⁻⁴⁰ = 9e-13"


@unhurried
@given(x=numbers, a=positive, b=positive, s=positive)
def test_salu_scales(x: float, a: float, b: float, s: float) -> None:
    def salu(x: float, a: float, b: float) -> float:
        return SALU(a, b).double()(double(x)).item()

    # The logarithms of a and b are stored in float32, hence 1e-5.
    assert salu(s * x, a, b) == pytest.approx(salu(x, s * a, s * b), rel=1e-5, abs=1e-12)
    assert s * salu(x, a, b) == pytest.approx(salu(x, s * a, b / s), rel=1e-5, abs=1e-12)


@unhurried
@given(x=numbers, a=positive, b=positive)
def test_salu_is_its_formula(x: float, a: float, b: float) -> None:
    expected = a * x / math.sqrt(1 + a * b * x * x)
    assert SALU(a, b).double()(double(x)).item() == pytest.approx(expected, rel=1e-5, abs=1e-12)


@unhurried
@given(a=positive, b=positive)
def test_salu_saturates_and_has_slope_a(a: float, b: float) -> None:
    x = double(-1e9, 0.0, 1e9).requires_grad_()
    y = SALU(a, b).double()(x)
    limit = math.sqrt(a / b)
    assert y.flatten().tolist() == pytest.approx([-limit, 0, limit], rel=1e-5)
    slope = torch.autograd.grad(y.sum(), x)[0].flatten().tolist()
    assert slope == pytest.approx([0, a, 0], rel=1e-5, abs=1e-12)


@unhurried
@given(x=numbers, a=positive, b=positive)
def test_gated_units_are_their_formulas(x: float, a: float, b: float) -> None:
    def salu(x: float) -> float:
        return a * x / math.sqrt(1 + a * b * x * x)

    psi = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    for layer, gate in ((SWALU(a, b), salu(x)), (GALU(a, b), salu(psi))):
        # 1 + gate cancels for negative x: the error is absolute, in units of |x|.
        expected = x / 2 * (1 + gate)
        assert layer.double()(double(x)).item() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_gated_units_by_pencil() -> None:
    # SWALU(2; ½, ½) = 1 + 1/√2. GALU(1; 1, 1): ψ = 0.833561, gate 0.640299.
    assert SWALU(0.5, 0.5)(torch.tensor([[2.0]])).item() == pytest.approx(1.707107)
    assert GALU(1.0, 1.0)(torch.tensor([[1.0]])).item() == pytest.approx(0.5 * 1.640299, abs=1e-5)


def test_averaging_parameters_is_the_geometric_mean() -> None:
    mean = SALU(1.0, 1.0)
    other = SALU(4.0, 9.0)
    with torch.no_grad():
        for p, q in zip(mean.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 0.5)
    assert mean.log_a.exp().item() == pytest.approx(2)
    assert mean.log_b.exp().item() == pytest.approx(3)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_salu_refuses_what_is_not_positive(a: float, b: float) -> None:
    with pytest.raises(ValueError, match=rf"^a={a}, b={b}: both have to be positive$"):
        SALU(a, b)


def test_scalars_are_those_of_activations_only() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), SALU(1.0, 1.0), nn.Sequential(ZCSwish(2)), nn.PReLU())
    assert scalars(net) == {"1.log_a", "1.log_b", "2.0.center", "2.0.log_beta", "2.0.scale"}
    assert scalars(ZCSwish(2)) == {"center", "log_beta", "scale"}
