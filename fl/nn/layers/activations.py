"""Activations with learnable scalars: ZC-Swish, and the SALU family of SaluNet.

Everything is written in plain differentiable operations, because these work under vmap, compilation
and double precision, which hand-written autograd functions do not always do. At micro-batches the
time of a step is that of dispatching its operations, so forward passes have as few as we found.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from fl.nn.layers.gains import over_normal

Form = Literal["anchored", "gated", "shifted"]


class Activation(nn.Module):
    """An elementwise function all of whose parameters are learnable scalars.

    The knob `client.activation-lr` applies to the parameters of this class: see `scalars`.

    Args:
        channels: channels C of the inputs (batch, C, *space); read only if `per_channel`.
        per_channel: one scalar a channel, shape (C,), instead of one for the layer, shape ().
    """

    logarithms: ClassVar[tuple[str, ...]] = ()
    """The parameters that are logarithms of scalars, which stay positive in this way."""

    def __init__(self, channels: int = 1, per_channel: bool = False):
        super().__init__()
        self._shape = (channels,) if per_channel else ()

    def _scalar(self, value: float) -> nn.Parameter:
        return nn.Parameter(torch.full(self._shape, value))


def _all(*tensors: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
    return *tensors, *named.values()


@wrap_torch_function(_all)  # pyrefly: ignore
def zc_swish(x: Tensor, center: Tensor, log_beta: Tensor, scale: Tensor) -> Tensor:
    """Return ``(g/β)·[silu(βx - βc) - silu(-βc)]``, the `anchored` form of `ZCSwish`.

    A `TorchFunctionMode`, such as `fl.vectorized.operators.Operators`, can replace this function,
    `salu` and `swalu`.

    Shapes: x (batch, C, *space); c, log β and g () or (C,); the result as x.
    """
    beta = aligned(log_beta, x).exp()
    shift = beta * aligned(center, x)
    return (F.silu(x * beta - shift) - F.silu(-shift)) * (aligned(scale, x) / beta)


@wrap_torch_function(_all)  # pyrefly: ignore
def salu(x: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return ``a·x/√(1 + a·b·x²)``, see `SALU`.

    Shapes: x (batch, C, *space); log a and log b () or (C,); the result as x.
    """
    # The formula divided by a: x / hypot(x·√(b/a), 1/a); unlike x², hypot can't overflow.
    log_a, log_b = aligned(log_a, x), aligned(log_b, x)
    return x / torch.hypot(x * ((log_b - log_a) / 2).exp(), (-log_a).exp())


@wrap_torch_function(_all)  # pyrefly: ignore
def swalu(x: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return ``(x/2)·[1 + SALU(x)]``, see `SWALU`.

    Shapes: as `salu`.
    """
    half = x / 2
    return half + half * salu(x, log_a, log_b)


class ZCSwish(Activation):
    """Zero-centred Swish, with a learnable center c, slope β = exp(log_beta) > 0 and scale g.

    Which formula is meant is not known, so there are three forms:

    * `anchored`: f(x) = g·[(x - c)·σ(β(x - c)) + c·σ(-βc)], a shifted Swish that is anchored at
      the origin again: f(0) = 0 for every c, β and g. With c = 0, β = 1, g = 1 it is Swish. A
      negative c takes the mean of f over N(0, 1) towards 0 and its slope at 0 towards 1. It is
      computed in the equal form f(x) = (g/β)·[silu(βx - βc) - silu(-βc)].
    * `gated`: f(x) = g·x·σ(β(x - c)), where only the gate is shifted; f(0) = 0 trivially.
    * `shifted`: f(x) = g·[x·σ(βx) - c], which takes the mean away directly, but has f(0) = -g·c.

    Source: three learnable scalars with f(0) = 0 are from arXiv 2604.19453, whose formula we
    could not read: all three forms, β > 0 and the initial values are derived (ours). `shifted`
    contradicts f(0) = 0, and is there for comparison.

    Args:
        channels: as `Activation`.
        per_channel: as `Activation`; what the paper does is unknown.
        center: initial c, in units of x (`shifted`: of f). None: -1, and for `shifted` the mean
            of Swish over N(0, 1), 0.2066, so that f has mean 0. The initial β and g are 1.
        form: one of the three.
    """

    logarithms = ("log_beta",)

    def __init__(
        self,
        channels: int,
        per_channel: bool = False,
        center: float | None = None,
        form: Form = "anchored",
    ):
        super().__init__(channels, per_channel)
        if center is None:
            center = over_normal(nn.SiLU())[0] if form == "shifted" else -1.0
        self.form = form
        self.center = self._scalar(center)
        self.log_beta = self._scalar(0.0)
        self.scale = self._scalar(1.0)

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return f(x)."""
        if self.form == "anchored":
            return zc_swish(x, self.center, self.log_beta, self.scale)
        beta, center = aligned(self.log_beta, x).exp(), aligned(self.center, x)
        scale = aligned(self.scale, x)
        if self.form == "gated":
            return x * torch.sigmoid((x - center) * beta) * scale
        return (F.silu(x * beta) / beta - center) * scale


class SALU(Activation):
    """Saturating unit that takes the place of a normalizer.

    SALU(x; a, b) = a·x / √(1 + a·b·x²), a > 0, b > 0: slope a at 0, saturation at ±√(a/b).

    Source: arXiv 2606.02927, operators. Derived (ours): initial values, positivity (a and b are
    stored as logarithms, so an average over clients is the weighted geometric mean of a and
    of b, unless `state.scalars` says otherwise), and the `per_channel` variant (in the paper, a
    module has one pair).

    Args:
        a: initial slope.
        b: initial saturation; the limit is √(a/b).
        channels: as `Activation`.
        per_channel: as `Activation`.

    Raises:
        ValueError: a or b is not positive.
    """

    logarithms = ("log_a", "log_b")

    def __init__(self, a: float, b: float, channels: int = 1, per_channel: bool = False):
        super().__init__(channels, per_channel)
        if not (a > 0 and b > 0):
            raise ValueError(f"a={a}, b={b}: both have to be positive")
        self.log_a = self._scalar(math.log(a))
        self.log_b = self._scalar(math.log(b))

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return SALU(x; a, b)."""
        return salu(x, self.log_a, self.log_b)


class SWALU(SALU):
    """Swish whose gate is a SALU: SWALU(x) = (x/2)·[1 + SALU(x; a, b)].

    a = b = 1/2 has Swish's slope of the gate. Arguments, errors and what is derived: as `SALU`;
    a and b are not those of the SALU in front of it. Source: arXiv 2606.02927, operators.
    """

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return SWALU(x)."""
        return swalu(x, self.log_a, self.log_b)


class GALU(SALU):
    """GELU whose gate is a SALU: GALU(x) = (x/2)·[1 + SALU(ψ(x); a, b)].

    ψ(x) = √(2/π)·(x + 0.044715·x³), as in the tanh form of GELU; a = b = 1 has the slope of
    GELU's gate. Finite for |x| < 1e12 in float32. Arguments, errors and what is derived: as
    `SALU`. Source: arXiv 2606.02927, operators.
    """

    CUBIC: ClassVar[float] = 0.044715

    def forward(
        self, x: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *space"]:
        """Return GALU(x)."""
        psi = math.sqrt(2 / math.pi) * (x + self.CUBIC * x * x * x)
        half = x / 2
        return half + half * salu(psi, self.log_a, self.log_b)


def scalars(module: nn.Module) -> set[str]:
    """Return the names of the parameters that are learnable scalars of activations.

    The names are those of `module.named_parameters()`.
    """
    return {
        name
        for prefix, part in module.named_modules()
        if isinstance(part, Activation)
        for name, _ in part.named_parameters(prefix, recurse=False)
    }


def logarithms(module: nn.Module) -> set[str]:
    """Return the names of the parameters of activations that are logarithms of positive scalars."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, Activation)
        for name in part.logarithms
    }


def aligned(value: Tensor, x: Tensor) -> Tensor:
    """Shape one value a channel so that it broadcasts over (batch, channels, *space)."""
    return value if value.ndim == 0 else value.view(-1, *(1,) * (x.ndim - 2))
