"""How unequal devices are."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config.parsing import Knobs
from fl.config.parts import NonNegative, Positive


class Fleet(Knobs):
    """How unequal devices are; `fl/fleet.py` says what each does in a round."""

    stragglers: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a client does only U{1, …, E} of E local epochs in a round."""
    partial: Literal["keep", "drop"] = "keep"
    """What becomes of a client that did fewer epochs than asked."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a client that was asked does not reply."""
    memory: str = "none"
    """Batch sizes that devices can hold: `none`, or tiers `B:SHARE,…` such as `1:0.3,4:0.7`."""
    speeds: str = "none"
    """Simulated clock: `none`, or `lognormal:MEDIAN:SIGMA` with the median in images a second."""
    deadline: NonNegative = 0.0
    """Simulated seconds after which the server closes a round; 0 waits for all."""
    availability: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of its day during which a client can be asked."""
    day: Positive = 24
    """Rounds in a day."""

    @property
    def tiers(self) -> tuple[tuple[int, float], ...]:
        """Batch sizes and the share of the devices that hold them; empty for `none`."""
        if self.memory == "none":
            return ()
        pairs = [text.split(":") for text in self.memory.split(",")]
        return tuple((int(size), float(share)) for size, share in pairs)

    @property
    def lognormal(self) -> tuple[float, float] | None:
        """Median and σ of `speeds`; None for `none`."""
        if self.speeds == "none":
            return None
        kind, median, sigma = self.speeds.split(":")
        if kind != "lognormal":
            raise ValueError(kind)
        return float(median), float(sigma)

    @model_validator(mode="after")
    def _texts_are_spelt_right(self) -> "Fleet":
        try:
            tiers = self.tiers
            total = math.fsum(share for _, share in tiers)
            sound = all(size >= 1 and share > 0 for size, share in tiers)
            sound = sound and (not tiers or math.isclose(total, 1, abs_tol=1e-6))
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                f"fleet.memory={self.memory} should be none or tiers B:SHARE,… whose shares sum to "
                "1, for example 1:0.3,4:0.4,16:0.3"
            )
        try:
            median, sigma = self.lognormal or (1.0, 0.0)
            sound = 0 < median < math.inf and 0 <= sigma <= 10
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                f"fleet.speeds={self.speeds} should be none or lognormal:MEDIAN:SIGMA, for example "
                "lognormal:100:0.5"
            )
        if self.deadline and self.lognormal is None:
            raise ValueError(
                f"fleet.deadline={self.deadline:g} needs a clock: set fleet.speeds, for example to "
                "lognormal:100:0.5"
            )
        return self
