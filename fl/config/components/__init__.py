"""Components: what is a user's own, by a name that says where it is.

A component is a network, recipe, loss, metric, data set, deal or strategy that is not one of ours.
Its name is ``path/file.py:name`` or ``package.module:name``, and `find` turns it into the object.
The source goes wherever the knobs go: it is a knob itself, see `fl.config.components.sources`.
"""

from fl.config.components.names import KEYS as KEYS
from fl.config.components.names import Component as Component
from fl.config.components.names import FromPackage as FromPackage
from fl.config.components.names import beside as beside
from fl.config.components.names import find as find
from fl.config.components.names import gather as gather
from fl.config.components.names import get as get
from fl.config.components.names import is_component as is_component
from fl.config.components.names import located as located
from fl.config.components.names import names as names
from fl.config.components.names import put as put
from fl.config.components.names import was_run as was_run
from fl.config.components.objects import named as named
from fl.config.components.objects import with_names as with_names
from fl.config.components.options import PARTS as PARTS
from fl.config.components.options import canonical as canonical
from fl.config.components.options import check_options as check_options
from fl.config.components.options import parameters as parameters
from fl.config.components.options import part_of as part_of
from fl.config.components.options import replaced as replaced
from fl.config.components.options import spelt_out as spelt_out
from fl.config.components.options import with_options as with_options
from fl.config.components.sources import digest as digest
