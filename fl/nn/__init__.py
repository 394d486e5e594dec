"""The networks: skeletons with slots, and the recipes that fill them. Knows only torch."""

from fl.nn.convert import convert
from fl.nn.layers.activations import logarithms, scalars
from fl.nn.layers.convs import breaks_onednn, has_groups, standardized_weights
from fl.nn.layers.noise import Noise, seed_noise, train_without_noise
from fl.nn.layers.normalizers.batch_norm import BatchNorm, padded
from fl.nn.layers.normalizers.statistics import (
    fixed_in,
    fixed_statistics,
    forget_statistics,
    moments,
    statistics,
)
from fl.nn.networks import SKELETONS, build, chosen_recipe, resolve_auto
from fl.nn.recipe import Place, Recipe
from fl.nn.recipes import RECIPES, find, relevant

__all__ = [
    "RECIPES",
    "SKELETONS",
    "BatchNorm",
    "Noise",
    "Place",
    "Recipe",
    "breaks_onednn",
    "build",
    "chosen_recipe",
    "convert",
    "find",
    "fixed_in",
    "fixed_statistics",
    "forget_statistics",
    "has_groups",
    "logarithms",
    "moments",
    "padded",
    "relevant",
    "resolve_auto",
    "scalars",
    "seed_noise",
    "standardized_weights",
    "statistics",
    "train_without_noise",
]
