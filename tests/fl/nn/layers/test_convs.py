"""Convolutions by standardized weights: laws of the weights, of the output, of the gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from fl.nn.initialization import initialize
from fl.nn.layers.activations import SWALU, ZCSwish
from fl.nn.layers.convs import (
    CONVOLUTIONS,
    Kernel,
    StandardizedConv,
    plain,
    scaled_standardized,
    standardized,
)
from fl.nn.layers.gains import quadrature

few = settings(max_examples=40, deadline=None)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    groups = draw(st.integers(1, 3))
    return Kernel(
        dims=draw(st.integers(1, 3)),
        inputs=groups * draw(st.integers(2, 4)),
        outputs=groups * draw(st.integers(1, 4)),
        side=draw(st.sampled_from([1, 3])),
        stride=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        gain=draw(st.floats(0.5, 3)),
    )


def filled(kernel: Kernel, scaled: bool = True, seed: int = 1) -> StandardizedConv:
    """Return a convolution in double precision, with weights that are neither small nor centred."""
    generator = torch.Generator().manual_seed(seed)
    conv = StandardizedConv(kernel, scaled).double()
    nn.init.normal_(conv.weight, 2.0, 3.0, generator=generator)
    for parameter in (conv.bias, conv.gain):
        if parameter is not None:
            nn.init.uniform_(parameter, 0.5, 2.0, generator=generator)
    return conv


def images(kernel: Kernel, batch: int = 2, side: int = 5) -> Tensor:
    shape = batch, kernel.inputs, *(side,) * kernel.dims
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()


def by_hand(conv: StandardizedConv) -> tuple[Tensor, Tensor]:
    """Return (W - μ)/√(σ² + 1e-5), outputs by fan-in, and σ² of every output."""
    flat = conv.weight.detach().flatten(1)
    variance = flat.var(1, correction=0)
    return (flat - flat.mean(1, True)) / (variance[:, None] + 1e-5).sqrt(), variance


@few
@given(kernels())
def test_standardized_weights_have_mean_0_and_the_variance_that_is_asked_for(k: Kernel) -> None:
    conv = filled(k)
    flat = conv.standardized().detach().flatten(1)
    fan_in = k.inputs // k.groups * k.side**k.dims
    assert flat.shape == (k.outputs, fan_in)
    assert torch.allclose(flat.mean(1), torch.zeros(1).double(), atol=1e-12)
    _, variance = by_hand(conv)
    shrunk = variance / (variance + 1e-5)
    expected = (k.gain * conv.gain.detach().flatten()) ** 2 / fan_in * shrunk
    assert torch.allclose(flat.var(1, correction=0), expected, rtol=1e-10)


@few
@given(kernels())
def test_weight_standardization_is_its_formula(kernel: Kernel) -> None:
    conv = filled(kernel, scaled=False)
    assert conv.gain is None
    weights, _ = by_hand(conv)
    assert torch.allclose(conv.standardized().flatten(1), weights, rtol=1e-10, atol=1e-12)
    scaled = filled(kernel)
    weights, _ = by_hand(scaled)
    weights = weights * kernel.gain * weights.shape[1] ** -0.5 * scaled.gain.flatten(1)
    assert torch.allclose(scaled.standardized().flatten(1), weights, rtol=1e-10, atol=1e-12)


@few
@given(kernels(), st.floats(0.5, 10), st.floats(-5, 5), st.booleans())
def test_raw_weights_may_be_scaled_and_shifted(
    kernel: Kernel, scale: float, shift: float, scaled: bool
) -> None:
    conv, same = filled(kernel, scaled), filled(kernel, scaled)
    with torch.no_grad():
        same.weight.mul_(scale).add_(shift)
    # Two weights can be close to each other by chance, and then 1e-5 counts beside σ².
    spread = by_hand(conv)[1].min().item() * min(scale, 1) ** 2
    x = images(kernel)
    assert torch.allclose(conv(x), same(x), rtol=1e-9 + 1e-5 / spread, atol=1e-9 + 1e-4 / spread)


@few
@given(kernels(), st.booleans())
def test_it_is_a_convolution_by_its_standardized_weights(kernel: Kernel, scaled: bool) -> None:
    conv, reference = filled(kernel, scaled), plain(kernel).double()
    assert isinstance(reference, CONVOLUTIONS[kernel.dims])
    state = {"weight": conv.standardized().detach()}
    if kernel.bias:
        state["bias"] = conv.bias.detach()
    reference.load_state_dict(state)
    x = images(kernel)
    assert torch.allclose(conv(x), reference(x), rtol=1e-10, atol=1e-12)


ACTIVATIONS = [nn.Identity(), nn.ReLU(), nn.SiLU(), ZCSwish(1), SWALU(0.5, 0.5)]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("dims", [1, 2, 3])
@torch.no_grad()
def test_output_has_mean_0_and_variance_1_behind_an_activation(
    activation: nn.Module, dims: int
) -> None:
    """Given the weights, the law is exact: they sum to 0, and their squares to γ².

    So what is left is the sample's error, of 4,096 pixels in 32 channels that are nearly
    independent: √(2/131,072) = 0.4 % of the variance and √(1/131,072) = 0.3 % of a standard
    deviation for the mean; the tolerance is five times that.
    """
    generator = torch.Generator().manual_seed(1)
    conv = scaled_standardized(Kernel(dims, 64, 32, 1, gain=quadrature(activation)))
    initialize(conv, "lecun", generator)
    side = {1: 4096, 2: 64, 3: 16}[dims]
    y = conv(activation(torch.randn(1, 64, *(side,) * dims, generator=generator))).flatten(2)
    assert y.var(2).mean().item() == pytest.approx(1, abs=0.02)
    assert y.mean().item() == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradient(scaled: bool, dims: int) -> None:
    kernel = Kernel(dims, 4, 2, 3, stride=2, groups=2, gain=1.7)
    conv = filled(kernel, scaled)
    names = [name for name, _ in conv.named_parameters()]
    assert names == ["weight", "bias", "gain"][: 3 if scaled else 2]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(conv, dict(zip(names, parameters, strict=True)), (x,))

    inputs = [images(kernel, batch=1, side=3), *(p.detach() for p in conv.parameters())]
    assert torch.autograd.gradcheck(call, [value.requires_grad_() for value in inputs])


@few
@given(kernels())
def test_state_is_raw_weights_and_each_factory_makes_its_kind(kernel: Kernel) -> None:
    expected = {"weight", "bias"} if kernel.bias else {"weight"}
    assert standardized(kernel).state_dict().keys() == expected
    assert scaled_standardized(kernel).state_dict().keys() == {*expected, "gain"}
    assert standardized(kernel).weight.shape == plain(kernel).weight.shape


@pytest.mark.parametrize("scaled", [True, False])
def test_one_weight_can_not_be_standardized(scaled: bool) -> None:
    with pytest.raises(ValueError, match=r"of side 1 from 1 channels .* raise network.width$"):
        StandardizedConv(Kernel(2, 1, 8, 1), scaled)
