"""Convolutions that recipes choose from. Initial weights are left to `fl.nn.initialization`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fl.nn.layers.unset import unset

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""PyTorch's convolutions by the dimensions of space: for signals, images and volumes."""
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Kernel:
    """The shape of a convolution; unless it says otherwise, sides become ⌈side / stride⌉ pixels."""

    dims: int
    """Dimensions of space, 1 to 3."""
    inputs: int
    """Channels in."""
    outputs: int
    """Channels out."""
    side: int
    """Side of the kernel, in pixels; odd."""
    stride: int = 1
    """Stride in pixels."""
    groups: int = 1
    """Groups of channels that do not see each other."""
    bias: bool = True
    """Whether there is a bias for each channel out."""
    gain: float = 1.0
    """γ: what the activation in front takes from a standard deviation; see `fl.nn.layers.gains`."""
    same: bool = False
    """Whether zeros are added as TensorFlow's "SAME" does, an odd one behind; else side // 2 on
    either end. The two differ with strides."""
    padding: int | None = None
    """Zeros on either end, in pixels; None: side // 2."""
    dilation: int = 1
    """Pixels from one weight of the kernel to the next."""

    @property
    def zeros(self) -> int:
        """The zeros on either end, in pixels."""
        return self.side // 2 if self.padding is None else self.padding


def plain(kernel: Kernel) -> nn.Module:
    """Return PyTorch's convolution, padded with zeros; it has no use for γ.

    Raises:
        ValueError: `kernel.same` with a stride, which PyTorch does not have.
    """
    if kernel.same and kernel.stride > 1:
        raise ValueError("a plain convolution with a stride can't pad as SAME does")
    return unset(
        CONVOLUTIONS[kernel.dims],
        kernel.inputs,
        kernel.outputs,
        kernel.side,
        stride=kernel.stride,
        padding=kernel.zeros,
        dilation=kernel.dilation,
        groups=kernel.groups,
        bias=kernel.bias,
    )


class StandardizedConv(nn.Module):
    """A convolution by weights that are standardized over their fan-in in every pass.

    Ŵ_ij = s·g_i·(W_ij - μ_i)/√(σ²_i + 1e-5), with mean μ and biased variance σ² over the N weights
    that make output i, and s = γ/√N, so that outputs have the variance of inputs that come from
    an activation with gain γ. The raw weights W are what learns, and what clients average unless
    `state.weights` says otherwise.

    Source: scaled weight standardization, arXiv 2101.08692, section 4, with γ folded into the
    weights and a learnable gain g_i (initially 1) as in its authors' and timm's code. With
    `scaled=False`, s = g = 1: weight standardization as of arXiv 1903.10520, section 3.

    Args:
        kernel: the convolution's shape and γ.
        scaled: whether γ, N and g_i scale the standardized weights.

    Raises:
        ValueError: N = 1.
    """

    EPS = 1e-5

    def __init__(self, kernel: Kernel, scaled: bool = True):
        super().__init__()
        self.kernel = kernel
        ones = (1,) * kernel.dims
        fan_in = kernel.inputs // kernel.groups * kernel.side**kernel.dims
        if fan_in < 2:
            raise ValueError(
                f"a convolution of side {kernel.side} from {kernel.inputs} channels has kernels of "
                "one weight, which can't be standardized; raise network.width"
            )
        shape = kernel.outputs, kernel.inputs // kernel.groups, *(kernel.side,) * kernel.dims
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(kernel.outputs)) if kernel.bias else None
        self.gain = nn.Parameter(torch.ones(kernel.outputs, 1, *ones)) if scaled else None
        self.scale = kernel.gain * fan_in**-0.5

    def forward(
        self, x: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *smaller"]:
        """Return the convolution of x, padded with zeros, by the standardized weights."""
        k, padding = self.kernel, self.kernel.zeros
        if k.same and k.stride > 1:
            x, padding = _padded_as_same(x, k), 0
        weight, convolve = self.standardized(), _CONVOLVE[k.dims]
        return convolve(x, weight, self.bias, k.stride, padding, k.dilation, k.groups)

    def standardized(self) -> Float[Tensor, "outputs inputs *side"]:
        """Return Ŵ."""
        flat = self.weight.reshape(1, len(self.weight), -1)
        gain = None if self.gain is None else self.gain.view(-1) * self.scale
        return F.batch_norm(
            flat, None, None, weight=gain, training=True, momentum=0.0, eps=self.EPS
        ).view_as(self.weight)


def _padded_as_same(x: Tensor, kernel: Kernel) -> Tensor:
    """Add the zeros that ⌈side / stride⌉ outputs need, half of them, rounded up, behind."""
    zeros: list[int] = []
    for side in reversed(x.shape[2:]):
        needed = (-(-side // kernel.stride) - 1) * kernel.stride + kernel.side - side
        zeros += [max(needed, 0) // 2, (max(needed, 0) + 1) // 2]
    return F.pad(x, zeros)


def scaled_standardized(kernel: Kernel) -> nn.Module:
    """Return a convolution with scaled weight standardization."""
    return StandardizedConv(kernel)


def standardized(kernel: Kernel) -> nn.Module:
    """Return a convolution with weight standardization, for a normalizer to scale."""
    return StandardizedConv(kernel, scaled=False)


def breaks_onednn(network: nn.Module) -> bool:
    """Return whether oneDNN gets the gradient of a convolution of a network wrong.

    oneDNN 3.12 writes beyond its own memory where kernels of side 1 with strides see fewer channels
    than a vector has numbers (8, with AVX-512 16), and maps have their channels last in memory, as
    images of one channel may seem to. Then gradients are wrong, or the process ends
    (uxlfoundation/oneDNN#6035, open; with PyTorch 2.13.0 and 4 or 7 channels it ended here).
    """
    return any(
        kernel.side == 1 and kernel.stride > 1 and kernel.inputs // kernel.groups < 16
        for kernel in map(_kernel, network.modules())
        if kernel
    )


def _kernel(layer: nn.Module) -> Kernel | None:
    """Return the shape of a convolution; None where the layer is none."""
    if isinstance(layer, StandardizedConv):
        return layer.kernel
    if not isinstance(layer, tuple(CONVOLUTIONS.values())):
        return None
    side, stride = max(layer.kernel_size), max(layer.stride)
    dims = len(layer.kernel_size)
    return Kernel(dims, layer.in_channels, layer.out_channels, side, stride, layer.groups)


def has_groups(network: nn.Module) -> bool:
    """Return whether a convolution of a network has groups, as depthwise ones do."""
    return any(kernel.groups > 1 for kernel in map(_kernel, network.modules()) if kernel)


def standardized_weights(network: nn.Module) -> dict[str, float]:
    """Return the names of weights that their layers standardize in every pass, with the eps."""
    return {
        f"{name}.weight" if name else "weight": layer.EPS
        for name, layer in network.named_modules()
        if isinstance(layer, StandardizedConv)
    }
