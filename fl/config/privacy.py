"""Differential privacy of clients: what is clipped, and how much noise the mean gets."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config.parsing import Knobs


class Privacy(Knobs):
    """Central differential privacy with fixed clipping.

    All clients of a round get the same weight. docs/guide/devices.md says what is not protected.
    """

    kind: Literal["none", "server", "client"] = "none"
    """Who clips a client's update. `server`: the server, which sees the unclipped update.
    `client`: the client itself, before the update leaves it. `none`: nobody."""
    clip: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    """C: a client's update is clipped to this 2-norm, taken over all parameters."""
    noise: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """z: the mean over K clients gets Gaussian noise with standard deviation z·C/K."""
    noise_from: Literal["seed", "system"] = "seed"
    """Where the noise is drawn from. `seed` repeats the same noise, so anybody who knows the seed
    can subtract it; use it in simulations only. `system` draws noise that nobody can repeat."""

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> "Privacy":
        if self.noise and self.kind == "none":
            raise ValueError(
                f"privacy.noise={self.noise} needs updates that are clipped; set privacy.kind to "
                "server or client"
            )
        return self
