"""Where an experiment runs without a network: the grids that stand in for Flower's."""

from fl.simulation.grid import InlineGrid as InlineGrid
from fl.simulation.run import run as run
