"""How long a server waits for real devices, and for how many; no simulation depends on it."""

from typing import Annotated

from pydantic import Field

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
