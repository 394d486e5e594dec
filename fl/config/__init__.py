"""The vocabulary: an Experiment and its parts, as Python objects, TOML tables or flat keys.

Every knob has one name. In Python it is an attribute (``experiment.client.batch_size``); in TOML,
``--set`` and Flower's run config it is a flat key (``client.batch-size``). All values are
immutable, and an impossible one is refused when the object is made.
"""

from fl.config.devices import Devices as Devices
from fl.config.experiment import Experiment as Experiment
from fl.config.experiment import relevant as relevant
from fl.config.faults import Faults as Faults
from fl.config.fleet import Fleet as Fleet
from fl.config.parts import DEVICES as DEVICES
from fl.config.parts import Client as Client
from fl.config.parts import Data as Data
from fl.config.parts import Layout as Layout
from fl.config.parts import Network as Network
from fl.config.parts import Partition as Partition
from fl.config.parts import Sampling as Sampling
from fl.config.parts import Signals as Signals
from fl.config.parts import State as State
from fl.config.parts import Strategy as Strategy
from fl.config.parts.client import parse_clip as parse_clip
from fl.config.parts.client import parse_schedule as parse_schedule
from fl.config.privacy import Privacy as Privacy
from fl.config.round import Round as Round
from fl.config.run import Run as Run
from fl.config.task import Task as Task
