"""Differential privacy of clients: what is clipped, and how much noise the mean gets."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config.parsing import Knobs


class Privacy(Knobs):
    """Central differential privacy by Flower's wrappers; docs/devices.md says what it leaves open.

    All clients of a round count the same.
    """

    kind: Literal["none", "server", "client"] = "none"
    """Who clips a client's update: the server, which sees it whole, or the client itself."""
    clip: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    """C: the 2-norm to which the update of a client is clipped, over all parameters."""
    noise: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """z: the mean of K clients gets Gaussian noise of deviation z·C/K."""
    noise_from: Literal["seed", "system"] = "seed"
    """`seed`: the same noise again, which whoever knows the seed can take off, so that it is for
    simulations only; `system`: noise that nobody can repeat."""

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> "Privacy":
        if self.noise and self.kind == "none":
            raise ValueError(
                f"privacy.noise={self.noise} needs updates that are clipped; set privacy.kind to "
                "server or client"
            )
        return self
