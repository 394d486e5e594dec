"""How unequal devices are."""

import math
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config.parsing import Knobs
from fl.config.parts import NonNegative, Positive


class Fleet(Knobs):
    """How unequal devices are; `fl/fleet.py` says what each does in a round."""

    stragglers: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a client is a straggler in a round. Of its E local epochs a straggler does
    U{1, …, E}."""
    partial: Literal["keep", "drop"] = "keep"
    """What the server does with a client that did fewer epochs than asked: `keep` counts its
    work, `drop` discards it."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a sampled client does not reply."""
    memory: str = "none"
    """Memory tiers of the devices, `B:SHARE,…`: in `1:0.3,4:0.7`, 30 % of the devices train with
    batches of 1 and 70 % with batches of 4. With `none` all use `client.batch-size`."""
    speeds: str = "none"
    """Speeds of the devices for the simulated clock, `lognormal:MEDIAN:SIGMA`, with the median in
    images per second. With `none` there is no clock."""
    deadline: NonNegative = 0.0
    """Simulated seconds after which the server closes a round. With 0 the server waits for all
    clients."""
    availability: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of its day during which a client can be sampled."""
    day: Positive = 24
    """Length of a day, in rounds."""

    @property
    def tiers(self) -> tuple[tuple[int, float], ...]:
        """Batch sizes and the share of the devices that hold them; empty for `none`."""
        return memory_tiers(self.memory)

    @property
    def lognormal(self) -> tuple[float, float] | None:
        """Median and σ of `speeds`; None for `none`."""
        return lognormal_speeds(self.speeds)

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


# Both are asked for in every round and for every client, so each text is parsed once. They are
# functions of the text and not cached properties: `model_copy` would keep those of the original.


@lru_cache(maxsize=64)
def memory_tiers(text: str) -> tuple[tuple[int, float], ...]:
    """Return the batch sizes and shares in a text of `fleet.memory`; none for `none`."""
    if text == "none":
        return ()
    pairs = [tier.split(":") for tier in text.split(",")]
    return tuple((int(size), float(share)) for size, share in pairs)


@lru_cache(maxsize=64)
def lognormal_speeds(text: str) -> tuple[float, float] | None:
    """Return median and σ in a text of `fleet.speeds`; None for `none`."""
    if text == "none":
        return None
    kind, median, sigma = text.split(":")
    if kind != "lognormal":
        raise ValueError(kind)
    return float(median), float(sigma)
