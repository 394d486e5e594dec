"""Where an experiment runs: the grids that stand in for Flower's network."""

from fl.runtime.inline import InlineGrid as InlineGrid
from fl.runtime.simulate import run as run
