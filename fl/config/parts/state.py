"""What becomes of a network's state between rounds, and what of the network stays with clients."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fl.config.parsing import Knobs, Value


def _is_a_pattern(text: str) -> str:
    if not all(text.split(",")) or text != "".join(text.split()):
        raise ValueError(
            "should be none, norm, activations, head, or patterns of parameters' names, with "
            "commas and no spaces between"
        )
    return text


class State(Knobs):
    """What becomes of BatchNorm's statistics between rounds, and what stays with each client."""

    bn: Literal["average", "pooled", "local", "recalibrate", "drop"] = "average"
    """The policy for BatchNorm's running statistics between rounds; docs/design/batchnorm.md."""
    fixed_from: Annotated[int, Field(ge=0)] = 0
    """The first round in which clients normalize by fixed running statistics, as in FixBN (arXiv
    2303.06530). 0 never fixes them."""
    local: Annotated[str, AfterValidator(_is_a_pattern)] = "none"
    """Parameters that stay with each client and are never averaged: `none`; `norm`, those of
    normalizers, and BatchNorm's statistics with them (FedBN, arXiv 2102.07623); `activations`,
    their learned scalars; `head`, the last layer with weights (FedPer, arXiv 1912.00818); or those
    whose names match a pattern such as `layers.*`, or one of several with commas between
    (LG-FedAvg, arXiv 2001.01523). docs/methods/local.md says what is evaluated then."""

    scalars: Literal["log", "raw", "softplus"] = "log"
    """What the server takes the mean of, of activations' learned scalars a that stay positive, such
    as SALU's two and ZC-Swish's β: `log`, of log a, which is the geometric mean of a; `raw`, of a;
    `softplus`, of softplus⁻¹(a), which is between the two."""

    weights: Literal["raw", "standardized"] = "raw"
    """What the server takes the mean of, of weights that their layers standardize in every pass, as
    those of the recipes `nf` and `ws-groupnorm`: the `raw` weights that clients learn, or these
    `standardized`, so that all clients' count alike, however long theirs have grown."""

    @property
    def keeps_statistics(self) -> bool:
        """Whether BatchNorm's statistics stay with each client."""
        return self.bn == "local" or (self.local == "norm" and self.bn != "drop")

    @model_validator(mode="after")
    def _statistics_are_shared_or_not(self) -> "State":
        if self.local == "norm" and self.bn in ("pooled", "recalibrate"):
            raise ValueError(
                f"state.bn={self.bn} shares the statistics that state.local=norm leaves with "
                "clients; leave state.bn out"
            )
        return self

    @model_validator(mode="after")
    def _something_is_there_to_fix(self) -> "State":
        if self.fixed_from and self.bn == "drop":
            raise ValueError(
                f"state.fixed-from={self.fixed_from} needs statistics, and state.bn=drop keeps "
                "none; take another policy, such as average"
            )
        return self


ADDED: dict[str, Value] = {"state.local": "none", "state.scalars": "log", "state.weights": "raw"}
"""Knobs that the first experiments did not have, and the values that stand for what those did."""
