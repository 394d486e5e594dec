"""How long a server waits for real devices, and for how many; no simulation depends on it."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from fl.config.parsing import Knobs

Seconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Devices(Knobs):
    """How many devices a run needs, and how long it waits for them; docs/guide/devices.md."""

    least: Annotated[int, Field(ge=0)] = 0
    """The fewest devices with which the run and each of its rounds begin. With 0 the run begins
    with all devices, and each round with at least one."""
    wait: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 120.0
    """Seconds to wait for devices: for all of them before the run, and for `least` of them before
    each round."""
    reply: Seconds = 3600.0
    """Seconds to wait for the replies of a round. A later reply is left out of the round."""
    most_images: Annotated[int, Field(ge=1)] = 1_000_000
    """The most training images, and the most held-out ones, that a device with data of its own may
    say it holds. A device counts in the mean by what it says, so that one that says more is left
    out. Of images that the server has dealt it knows the number itself."""
    keys: str = ""
    """The folder in which `register.sh` of a deployment keeps which node each device's key was
    given, as an absolute path. A device is then taken only for the partition of its key. If empty,
    whoever claims a partition first has it."""

    @field_validator("keys")
    @classmethod
    def _keys_are_absolute(cls, text: str) -> str:
        if text and not Path(text).is_absolute():
            raise ValueError("should be an absolute path, since Flower runs the server elsewhere")
        return text
