"""The table of recipes: a row says which layers fill a skeleton's slots."""

from collections.abc import Mapping
from types import MappingProxyType

from fl import config
from fl.config.parsing import Value, did_you_mean
from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.recipe import Recipe
from fl.nn.recipes.normalized import NORMALIZED
from fl.nn.recipes.normalizer_free import NORMALIZER_FREE

RECIPES: Mapping[str, Recipe] = MappingProxyType({**NORMALIZED, **NORMALIZER_FREE})
"""Every contender by the name that the knob `recipe` takes. It can't be changed: code that adds a
row would be in no experiment's identity. A recipe of a user's is a component."""

OWN = Recipe(
    label="its own layers",
    description="The layers of a network of the user's own, as they are.",
    norm=lambda place: BatchNorm(place.channels),
    activation=lambda place: place.native(),
    fits=frozenset({"own"}),
    batchnorm=True,
)
"""The recipe `own`, which leaves a network of the user's as it is: see `fl.nn.convert`."""


def find(name: str) -> Recipe:
    """Return the row of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if row := OWN if name == "own" else RECIPES.get(name):
        return row
    raise ValueError(f"recipe={name} does not exist; {did_you_mean(name, RECIPES)}")


def relevant(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flat keys that bear on a result.

    These are the keys of `fl.config.relevant` but `state.bn` and `state.fixed-from` where the
    recipe has no BatchNorm layers. Of a recipe that is not in the table, as in the folder of an old
    run, that is not known, and they are kept.
    """
    found = config.relevant(knobs)
    row = RECIPES.get(str(knobs.get("recipe")))
    if row is None or row.batchnorm:
        return found
    return {key: v for key, v in found.items() if key not in ("state.bn", "state.fixed-from")}
