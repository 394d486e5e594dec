"""Where an experiment runs: the grids that stand in for Flower's network."""

from fl.simulation.grid import InlineGrid as InlineGrid
from fl.simulation.run import run as run
