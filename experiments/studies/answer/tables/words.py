"""How the answer's tables call contenders, and how they write numbers."""

from collections.abc import Sequence

from experiments.studies.answer.cause import AT_ITS_RATE, AT_LATER_RATES

NAMES = {
    "nf": "NF (scaled weight standardization)",
    "bn-average": "BatchNorm",
    "bn-recalibrate": "BatchNorm, recalibrated",
    "bn-fixbn": "BatchNorm, fixed from half of the rounds on",
    "ws-groupnorm": "weight standardization with GroupNorm",
    "zc-swish": "ZC-Swish",
    "salunet": "SaluNet",
    "none": "ReLU",
    "groupnorm": "GroupNorm, 4 groups",
    "layernorm": "LayerNorm",
    "groupnorm-2": "GroupNorm, 2 groups",
    "instancenorm": "instance normalization",
    "leaky-relu": "leaky ReLU",
    "swish": "Swish",
    **{name: name for name in (AT_ITS_RATE, *AT_LATER_RATES)},
    "frozen": "ZC-Swish, scalars frozen",
    "gated": "ZC-Swish, gated",
    "shifted": "ZC-Swish, shifted",
}
"""Contender -> what tables call it."""


def points(*fractions: float) -> str:
    """Write differences of accuracies in points; two are an interval, none a dash."""
    return _spelled([f"{100 * value:+.1f}" for value in fractions])


def plain(*values: float) -> str:
    """Write numbers as they are, likewise."""
    return _spelled([f"{value:+.2f}" for value in values])


def _spelled(values: Sequence[str]) -> str:
    text = ", ".join(values).replace("-", "−") or "–"
    return f"[{text}]" if len(values) > 1 else text
