"""What parts have in common that may be components."""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator

from fl.config.components import canonical
from fl.config.parsing import Knobs, Value

Options = Annotated[str, BeforeValidator(canonical)]
"""The own parameters of a component, as JSON."""


class Part(Knobs):
    """A part of an experiment that may be a component with parameters of its own."""

    @property
    def given(self) -> dict[str, Value]:
        """The values of the component's own parameters, by name, as far as they are given."""
        options = getattr(self, "options", "")
        return json.loads(options) if options else {}

    @property
    def ours(self) -> Any:
        """What the options are for where that is no component; None: nothing."""
        return None
