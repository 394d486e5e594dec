"""What distinguishes one experiment from another, in a reader's words and a reader's order."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from fl.config.parsing import Value
from fl.config.run import Governed, block_of
from fl.data import CATALOGUE
from fl.nn import relevant
from fl.nn.recipes import RECIPES
from strategies import STRATEGIES

Knobs = Mapping[str, Value]

_GROUPED = (
    "seed",
    *(f"seed.{what}" for what in get_args(Governed)),
    "recipe",
    "partition.kind",
    "partition.alpha",
    "partition.quantity-alpha",
    "partition.shards",
    "partition.labels",
    "partition.noise",
    "strategy.kind",
    "strategy.mu",
)
_WORDS = {
    "client.batch-size": "batch size {}",
    "client.epochs": "local epochs {}",
    "client.lr": "learning rate {}",
    "client.weight-decay": "weight decay {}",
    "data.name": "{}",
    "faults.kind": "fault {}",
    "faults.share": "{} of clients",
    "fleet.memory": "memory tiers {}",
    "network.depth": "depth {}",
    "network.dropout": "dropout {}",
    "network.init": "{} initial weights",
    "network.kind": "{}",
    "network.stochastic-depth": "stochastic depth {}",
    "network.width": "width {}",
    "partition.clients": "{} clients",
    "rounds": "{} rounds",
    "state.bn": "statistics {}",
    "state.fixed-from": "fixed from round {}",
    "state.local": "{} stays local",
    "partition.unseen": "{} of clients unseen",
    "sampling.clients": "{} clients a round",
    "strategy.max-norm": "max-norm {}",
}
_PARTITIONS = {
    "iid": ("iid", ()),
    "dirichlet": ("Dirichlet α = {:g}", ("alpha",)),
    "dirichlet-equal": ("Equal-size Dirichlet α = {:g}", ("alpha",)),
    "dirichlet-balanced": ("Balanced Dirichlet α = {:g}", ("alpha",)),
    "mixture": ("Dirichlet α = {:g}, sizes α = {:g}", ("alpha", "quantity-alpha")),
    "quantity": ("Sizes α = {:g}", ("alpha",)),
    "shards": ("Shards, {:g} a client", ("shards",)),
    "label-count": ("Labels, {:g} a client", ("labels",)),
    "feature-noise": ("Feature noise σ = {:g}", ("noise",)),
    "natural": ("Natural α = {:g}", ("alpha",)),
}
"""Each kind in words, and the knobs that these name."""
_PLAIN: dict[tuple[str, Value], str] = {
    ("client.weight-decay", 0.0): "no weight decay",
    ("faults.kind", "none"): "no faults",
    ("fleet.memory", "none"): "equal memory",
    ("network.dropout", 0.0): "no dropout",
    ("network.stochastic-depth", 0.0): "no stochastic depth",
    ("state.bn", "average"): "statistics averaged",
    ("partition.unseen", 0.0): "no client unseen",
    ("state.fixed-from", 0): "never fixed",
    ("state.local", "none"): "all shared",
    ("strategy.max-norm", 0.0): "any norm",
}
_WITHOUT_SAYING = ("FedAvg", *_PLAIN.values())
"""What a group's name leaves out if it has anything else to say."""


@dataclass(frozen=True, order=True)
class Setting:
    """The value of one aspect of an experiment; settings of one aspect sort as a reader expects."""

    aspect: str
    """`recipe`, `partition`, `strategy`, or the key of any other knob."""
    rank: tuple[float, str]
    text: str
    """Empty where the aspect does not apply."""


@dataclass(frozen=True, order=True)
class Group:
    """Settings that some runs have in common; `str(group)` is its name in tables and figures."""

    settings: tuple[Setting, ...]

    def __str__(self) -> str:
        texts = [setting.text for setting in self.settings if setting.text]
        told = [text for text in texts if text not in _WITHOUT_SAYING]
        return ", ".join(told or texts)

    def differences(self, other: "Group") -> list[str]:
        """Return the aspects in which two groups differ."""
        pairs = zip(self.settings, other.settings, strict=True)
        return [mine.aspect for mine, theirs in pairs if mine != theirs]


def settings(knobs: Knobs) -> dict[str, Setting]:
    """Return an experiment's setting of every aspect that applies to it."""
    found = [_recipe(knobs), _partition(knobs), _strategy(knobs)]
    found += [_plain(key, v) for key, v in relevant(knobs).items() if key not in _GROUPED]
    return {setting.aspect: setting for setting in found}


def seeds(knobs: Knobs) -> list[int]:
    """Return the seeds of deal, initial weights, sampling and order: the one seed, or their own."""
    return list(block_of(knobs)[1:])


def data_set(name: object) -> str:
    """Name a data set; of one that is known by its hash, by the first digits."""
    text = str(name)
    return text[: len("kept:") + 8] if text.startswith("kept:") else text


def values(experiments: Iterable[Mapping[str, object]], key: str) -> list[object]:
    """Return the distinct values of a key, sorted, among the experiments that have it."""
    found = {experiment[key] for experiment in experiments if key in experiment}
    return sorted(found, key=lambda value: (isinstance(value, str), value))


def varying(experiments: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys that have more than one value, among the experiments that have them."""
    keys = dict.fromkeys(key for experiment in experiments for key in experiment)
    return [key for key in keys if len(values(experiments, key)) > 1]


_OWN = ("network.init", "client.lr")
"""Aspects that are no condition where each contender has its own; the later follow the earlier."""


def group(experiments: Sequence[Knobs], compared: Iterable[str] = ()) -> list[tuple[Group, Group]]:
    """Say for each experiment to which series and to which condition it belongs.

    The series is what a study compares, as the knobs of its declared reference say. Where these
    don't vary it is the recipe, with what only some recipes have (`state.*`), or where all have the
    same the first aspect that varies. The condition is every other aspect that varies, but for a
    learning rate and initial weights if recipes have their own; where none is left, the partition
    (or the recipe) names it.

    Args:
        experiments: their knobs.
        compared: knobs of the reference that the study declared.
    """
    described = [settings(knobs) for knobs in experiments]
    aspects = varying(described)
    asked = {_aspect(key) for key in compared}
    series = [aspect for aspect in aspects if aspect in asked or _option(aspect) in asked]
    series = series or (["recipe"] if "recipe" in aspects or not aspects else aspects[:1])
    if series == ["recipe"]:
        series += [aspect for aspect in aspects if aspect.startswith("state.")]
    rest = [a for a in aspects if a not in series]
    for place, own in enumerate(_OWN if asked or series[0] == "recipe" else ()):
        others = [aspect for aspect in rest if aspect not in _OWN[place:]]
        decided = _decided(described, own, [*series, *others])
        if decided and not _decided(described, own, others):
            rest = [aspect for aspect in rest if aspect != own]
    if not rest:
        named = ("partition", "strategy") if series[0] == "recipe" else ("recipe",)
        rest = [aspect for aspect in named if aspect not in series]
    return [(_pick(found, series), _pick(found, rest)) for found in described]


def _aspect(key: str) -> str:
    """Return the aspect that a knob belongs to."""
    part = key.partition(".")[0]
    return part if part in ("partition", "strategy") and key in _GROUPED else key


def _option(aspect: str) -> str:
    """Return the aspect that a method's own option goes with."""
    return "strategy" if aspect.startswith("strategy.options.") else aspect


def _decided(described: Sequence[Mapping[str, Setting]], aspect: str, by: Iterable[str]) -> bool:
    """Say whether some aspects leave a single setting of another."""
    by = list(by)
    pairs = {(_pick(found, by), found.get(aspect)) for found in described}
    return len(pairs) == len({group for group, _ in pairs})


def _pick(found: Mapping[str, Setting], aspects: Iterable[str]) -> Group:
    return Group(tuple(found.get(a, Setting(a, (-math.inf, ""), "")) for a in aspects))


def _recipe(knobs: Knobs) -> Setting:
    name = str(knobs.get("recipe", ""))
    if name in RECIPES:
        return Setting("recipe", (list(RECIPES).index(name), ""), RECIPES[name].label)
    return Setting("recipe", (len(RECIPES), name), name)


def partition(knobs: Knobs) -> str:
    """Name an experiment's partition in words."""
    return _partition(knobs).text


def _partition(knobs: Knobs) -> Setting:
    kind = str(knobs.get("partition.kind", ""))
    words, names = _PARTITIONS.get(kind, (kind, ()))
    if kind == "natural" and _whole_domains(knobs):
        words, names = "Natural", ()
    found = [float(knobs.get(f"partition.{name}", 0.0)) for name in names]
    text = words.format(*found)
    if not found:
        return Setting("partition", (-math.inf, text), text)
    # The more skewed, the later: a smaller α, fewer labels, but more noise.
    return Setting("partition", (found[0] if "noise" in names else -found[0], text), text)


def _whole_domains(knobs: Knobs) -> bool:
    """Whether no domain is shared by clients, so that α means nothing; False where not known."""
    entry = CATALOGUE.get(str(knobs.get("data.name", "")))
    return entry is not None and int(knobs.get("partition.clients", 0)) <= len(entry.domains)


def _strategy(knobs: Knobs) -> Setting:
    kind, mu = str(knobs.get("strategy.kind", "")), knobs.get("strategy.mu", 0.0)
    name = STRATEGIES.get(kind, kind).rpartition(":")[2]  # without its file or package
    if kind == "fedavg":
        return Setting("strategy", (-math.inf, ""), name)
    if kind == "fedprox" or mu:
        return Setting("strategy", (float(mu), kind), f"{name} μ = {mu:g}")
    return Setting("strategy", (math.inf, kind), name)


def _plain(key: str, value: Value) -> Setting:
    if (plain := _PLAIN.get((key, value))) is not None:
        return Setting(key, (-math.inf, ""), plain)
    number = isinstance(value, int | float)
    text = f"{value:g}" if number and not isinstance(value, bool) else str(value).lower()
    if key == "data.name":
        text = data_set(value)
    rank = (float(value), "") if number else (math.inf, text)
    return Setting(key, rank, _WORDS.get(key, f"{key} = {{}}").format(text))
