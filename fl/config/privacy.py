"""Differential privacy of clients and of examples: what is clipped, and how much noise it gets."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config.parsing import Knobs, Value


class Privacy(Knobs):
    """Differential privacy with fixed clipping: of clients, and of examples at each client.

    With `kind` all clients of a round get the same weight. docs/design/privacy.md says what is
    protected and what is not.
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
    per_example_clip: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """C of DP-SGD (arXiv 1607.00133): the gradient of each example is clipped to this 2-norm before
    a client takes the mean of its batch. Then `client.clip=auto` is `none`. 0 clips none."""
    per_example_noise: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """σ of DP-SGD: the sum over a batch of clipped gradients gets Gaussian noise with standard
    deviation σ·C."""
    delta: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """δ for which a run with noise tells its ε. 0 takes n^-1.1, of n clients or n examples."""

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> "Privacy":
        if self.noise and self.kind == "none":
            raise ValueError(
                f"privacy.noise={self.noise} needs updates that are clipped; set privacy.kind to "
                "server or client"
            )
        if self.per_example_noise and not self.per_example_clip:
            raise ValueError(
                f"privacy.per-example-noise={self.per_example_noise} needs gradients that are "
                "clipped; set privacy.per-example-clip"
            )
        return self


def idle_privacy(knobs: Mapping[str, Value]) -> set[str]:
    """Return the flat keys of `privacy.*` that others switch off."""
    idle: set[str] = set()
    if central := knobs.get("privacy.kind") == "none":
        idle |= {"privacy.clip", "privacy.noise"}
    if not knobs.get("privacy.per-example-clip"):
        idle |= {"privacy.per-example-clip", "privacy.per-example-noise"}
        idle |= {"privacy.noise-from"} if central else set()
    return idle & knobs.keys()
