"""The networks: skeletons with slots, and the recipes that fill them. Knows only torch."""

from fl.nn.activations import scalars
from fl.nn.networks import build
from fl.nn.normalizers import BatchNorm, forget_statistics, moments, statistics
from fl.nn.recipes import RECIPES, Recipe, find

__all__ = [
    "RECIPES",
    "BatchNorm",
    "Recipe",
    "build",
    "find",
    "forget_statistics",
    "moments",
    "scalars",
    "statistics",
]
