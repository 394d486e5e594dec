"""The recipes that have no normalizer, or another layer in its place."""

from dataclasses import replace

from torch import nn

from fl.nn.layers.activations import GALU, SALU, SWALU, ZCSwish
from fl.nn.layers.convs import scaled_standardized
from fl.nn.layers.merges import MagnitudePreserving, magnitude_preserving_product
from fl.nn.layers.squashing import derf, dyt
from fl.nn.recipe import Place, Recipe
from fl.nn.recipes.skeletons import ANYWHERE, DENSE, PLAIN, RESIDUAL, SCALED


def _nothing(place: Place) -> nn.Module:
    return nn.Identity()


def _salu(place: Place) -> nn.Module:
    """Return SALU with a = b = 2 at first, which is derived (ours).

    SWALU has slope 1/2 at 0, so a = 2 keeps the slope of a layer at 1. Measured with the default
    knobs on 5,000 images of Fashion-MNIST (seeds 1, 2; accuracy on 1,000 test images after
    4,000 images): a plainnet of depth 16 reaches 69 % and 62 % with (a, b) = (2, 2), 68 % and
    52 % with (2, 0.2), but 10 % and 31 % with (1, 1). At depth 8, after 8,000 images, seven pairs
    from (1, 1) to (4, 1) reach 71 % to 78 %, too close to tell apart with two seeds.

    In front of a transformer's branches no layer halves what the last one gave: a = b = 1.
    """
    start = 1.0 if place.tokens else 2.0
    return SALU(start, start, place.channels, place.per_channel)


def _gated(place: Place) -> nn.Module:
    """Return the SALU-gated unit that takes the place of GELU, or of ReLU and Swish."""
    if place.native is nn.GELU:
        return GALU(1.0, 1.0, place.channels, place.per_channel)
    return SWALU(0.5, 0.5, place.channels, place.per_channel)


_NF = Recipe(
    label="NF",
    description="No normalizer, scaled weight standardization, residual branches of weight 0.2 "
    "on inputs of unit spread, and the network's own activation.",
    norm=_nothing,
    activation=lambda place: place.native(),
    fits=SCALED,
    conv=scaled_standardized,
    alpha=0.2,
    init="lecun",
)

NORMALIZER_FREE: dict[str, Recipe] = {
    "dyt": Recipe(
        label="DyT",
        description="γ·tanh(αx) + β with a learnable α in the place of the normalizer, and the "
        "network's own activation.",
        norm=lambda place: dyt(place.channels, place.per_channel),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
    ),
    "derf": Recipe(
        label="Derf",
        description="γ·erf(αx + s) + β with learnable α and s in the place of the normalizer, and "
        "the network's own activation.",
        norm=lambda place: derf(place.channels, place.per_channel),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
    ),
    "none": Recipe(
        label="ReLU",
        description="No normalizer, and ReLU.",
        norm=_nothing,
        activation=lambda _: nn.ReLU(),
        fits=DENSE,
    ),
    "leaky-relu": Recipe(
        label="Leaky ReLU",
        description="No normalizer, and ReLU with the slope 0.3 below 0, which is ours.",
        norm=_nothing,
        activation=lambda _: nn.LeakyReLU(0.3),
        fits=DENSE,
    ),
    "gelu": Recipe(
        label="GELU",
        description="No normalizer, and GELU.",
        norm=_nothing,
        activation=lambda _: nn.GELU(),
        fits=ANYWHERE,
    ),
    "swish": Recipe(
        label="Swish",
        description="No normalizer, and Swish.",
        norm=_nothing,
        activation=lambda _: nn.SiLU(),
        fits=DENSE,
    ),
    "zc-swish": Recipe(
        label="ZC-Swish",
        description="No normalizer, and Swish with a learnable center, slope and scale.",
        caveat="its paper (arXiv 2604.19453) could not be read, so the formula, with the learnable "
        "center, slope and scale that it is known to have, is ours.",
        norm=_nothing,
        activation=lambda place: ZCSwish(place.channels, place.per_channel),
        fits=ANYWHERE,
    ),
    "zc-swish-gated": Recipe(
        label="ZC-Swish, gated",
        description="No normalizer, and g·x·σ(β(x - c)), a Swish whose gate has a learnable "
        "center, slope and scale.",
        caveat="the formula of arXiv 2604.19453 could not be read, and this is our second guess.",
        norm=_nothing,
        activation=lambda place: ZCSwish(place.channels, place.per_channel, form="gated"),
        fits=DENSE,
    ),
    "zc-swish-shifted": Recipe(
        label="ZC-Swish, shifted",
        description="No normalizer, and g·(x·σ(βx) - c), a Swish from which a learnable center is "
        "taken, with learnable slope and scale.",
        caveat="not the formula of arXiv 2604.19453, since f(0) is not 0; it is ours, for "
        "comparison.",
        norm=_nothing,
        activation=lambda place: ZCSwish(place.channels, place.per_channel, form="shifted"),
        fits=DENSE,
    ),
    "salunet": Recipe(
        label="SaluNet",
        description="SALU, a·x / √(1 + a·b·x²) with learnable a and b, in the place of the "
        "normalizer, and SWALU, a Swish whose gate is a SALU, or where GELU would be, GALU.",
        caveat="the initial values of its scalars, and keeping them positive, are ours; the "
        "operators are those of its paper (arXiv 2606.02927).",
        norm=_salu,
        activation=_gated,
        fits=ANYWHERE,
    ),
    "selfnorm": Recipe(
        label="SELU",
        description="No normalizer, and SELU, which keeps mean 0 and variance 1 of what comes "
        "from weights of variance 1/fan_in.",
        caveat="its paper (arXiv 1706.02515) has linear layers only; the thesis that has it in "
        "EfficientNet (Dewyse, JKU Linz, 2025) has no biases in convolutions, and ours start at 0.",
        norm=_nothing,
        activation=lambda _: nn.SELU(),
        fits=PLAIN | {"ffnn"},
        init="lecun",
    ),
    "selfnorm-mp": Recipe(
        label="SELU + MP",
        description="As SELU, with sums and squeeze-excite products that preserve magnitudes.",
        caveat="its source (Dewyse, thesis, JKU Linz, 2025) has it in EfficientNet only, "
        "without biases in convolutions, and draws the classifier from N(0, 0.01²) where "
        "ours is from N(0, 1/fan_in).",
        norm=_nothing,
        activation=lambda _: nn.SELU(),
        fits=RESIDUAL,
        merge=MagnitudePreserving,
        excite=magnitude_preserving_product,
        init="lecun",
    ),
    "nf": _NF,
    "nf-agc": replace(
        _NF,
        label="NF + AGC",
        description="As NF, with adaptive gradient clipping.",
        clip="agc:0.01",
    ),
    "nf-zc-swish": replace(
        _NF,
        label="NF + ZC-Swish",
        description="As NF, with ZC-Swish in the place of the network's own activation.",
        caveat="the pair is ours.",
        activation=lambda place: ZCSwish(place.channels, place.per_channel),
    ),
}
"""The rows by name."""
