"""How a server deals with real devices; a part of no simulation's result."""

from typing import Annotated

from pydantic import Field

from fl.config.parsing import Knobs

Seconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Devices(Knobs):
    """How many devices have to be there, and how long the server waits; docs/devices.md."""

    least: Annotated[int, Field(ge=0)] = 0
    """Devices without which neither the run nor a round begins. 0: all to begin with, one later."""
    wait: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 120.0
    """Seconds to wait for devices: at the beginning for all, before a round for `least`."""
    reply: Seconds = 3600.0
    """Seconds to wait for the replies of a round; whoever is later is left out of it."""
