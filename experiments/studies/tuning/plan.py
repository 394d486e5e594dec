"""What is tuned: contenders, candidates, rungs and seeds, checked before anything runs."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from experiments.studies.tuning.space import Knobs
from fl.config import Experiment
from fl.config.experiment import bystander
from fl.config.parsing import ConfigError, Value, cut, did_you_mean
from fl.config.run import Governed
from fl.nn import relevant
from fl.reproducibility.checking import read_json
from fl.reproducibility.files import write_json
from fl.reproducibility.temporary import remove_leftovers
from fl.server.app import prepare
from fl.server.contents import CHECKPOINT, EXPERIMENT, readable
from fl.server.journal import Journal
from fl.server.opening import check
from fl.simulation.study import STUDY, spelt
from fl.tasks import objective

FIRST_SEED = 9001
"""Tuning seeds are this one and those after it. They are tuning's own: a study that has one of
them refuses the winners."""
TUNING = "tuning.json"
OWN_SEEDS = tuple(f"seed.{what}" for what in get_args(Governed))
"""The knobs that give a part of the randomness a seed of its own."""


@dataclass(frozen=True)
class Plan:
    """Contenders, and the candidates that each of them is tried with.

    Raises:
        ConfigError: there is nothing to tune, a knob can't be tuned, or a rung can't be scored.
    """

    base: Experiment
    """What all have in common. `rounds` is the length that a schedule of learning rates has."""
    contenders: tuple[Knobs, ...]
    """Who is tuned by itself, such as a recipe: each gets every candidate."""
    candidates: tuple[Knobs, ...]
    """What is tried, in an order in which of equal ones the first is best."""
    rungs: tuple[int, ...]
    """Rounds after which candidates are compared, and all but the best 1/η end."""
    seeds: int = 1
    """How many; a candidate's score is its mean over them."""
    factor: float = 2
    """η."""
    extensions: int | None = 0
    """How many times a contender's grid may be extended beyond an edge that leads. None: candidates
    are no grid, and have no edges."""

    def __post_init__(self) -> None:
        rungs, every = self.rungs, self.base.evaluation.every
        if not rungs or list(rungs) != sorted({n for n in rungs if n > 0}):
            raise ConfigError(f"rungs {_listed(rungs)}: they should be ascending, as 10,20,40")
        if rungs[-1] > self.base.rounds:
            raise ConfigError(
                f"rung {rungs[-1]} is beyond rounds={self.base.rounds}; raise rounds, or leave "
                "that rung out"
            )
        if late := [n for n in rungs if n % every and n != self.base.rounds]:
            raise ConfigError(
                f"rung {late[0]} is not evaluated with evaluation.every={every}; choose multiples"
            )
        if not 1 < self.factor < math.inf:
            raise ConfigError(f"keep 1/{self.factor:g} is no part of the candidates; take 2 or 3")
        self._check_keys()
        if self.base.run.patience:
            raise ConfigError("run.patience: rungs end the runs here; leave it out")
        if not (self.base.data.validation or self.base.partition.held_out):
            raise ConfigError(
                "tuning is scored on images that are neither trained on nor tested: set "
                "data.validation, as to 0.1, or partition.held-out for images of the clients"
            )
        of_all = [flat for contender in self.contenders for flat in self._relevant(contender)]
        for key in self.candidates[0]:
            if not any(key in flat for flat in of_all):
                raise ConfigError(f"{key} changes nothing here: no contender minds it")

    def _check_keys(self) -> None:
        known = self.base.to_flat()
        tried, apart = self.candidates[0] if self.candidates else {}, self.contenders[0]
        if not tried:
            raise ConfigError("there is nothing to tune: give candidates, as client.lr=0.02,0.05")
        check_seeds((*tried, *apart, *(key for key in OWN_SEEDS if known[key] != "auto")))
        for key in (*tried, *apart):
            if key not in known:
                raise ConfigError(f"unknown knob {cut(key)}; {did_you_mean(key, known)}")
            if key == "rounds" or bystander(key):
                raise ConfigError(f"{key} is nothing to compare by: tuning has rungs for lengths")
        if both := sorted(tried.keys() & apart.keys()):
            raise ConfigError(f"{both[0]} is tuned, and names contenders; it can be one of them")

    def _relevant(self, contender: Knobs) -> Iterator[dict[str, Value]]:
        for candidate in self.candidates:
            yield relevant(self.base.replace({**contender, **candidate}).to_flat())

    @cached_property
    def metric(self) -> str:
        """The key of the score in a round's line."""
        name = objective(self.base).primary.name
        return f"validation_{name}" if self.base.data.validation else f"global_{name}_held_out"

    @property
    def scored_on(self) -> str:
        """What the score is, in words."""
        title = objective(self.base).primary.title
        whose = "validation images" if self.base.data.validation else "clients' held-out images"
        return f"{title} on {whose}"

    def distinct(self, contender: Knobs) -> list[Knobs]:
        """Return the candidates of a contender without those that do the same as one before."""
        found: dict[frozenset, Knobs] = {}
        for candidate, flat in zip(self.candidates, self._relevant(contender), strict=True):
            found.setdefault(frozenset(flat.items()), candidate)
        return list(found.values())

    def runs(self, contender: Knobs, candidate: Knobs) -> dict[int, tuple[str, Experiment]]:
        """Return for each tuning seed the name of a run and its experiment.

        Raises:
            ConfigError: a knob does not take such a value.
        """
        knobs = {**contender, **candidate}
        name = "_".join(spelt(key, value) for key, value in knobs.items())
        seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
        return {
            seed: (f"{name}_seed-{seed}", self.base.replace({**knobs, "seed": seed}))
            for seed in seeds
        }

    def begin(self, folder: Path, command: str) -> None:
        """Check that every run can be written below a folder, then write the plan there.

        Raises:
            ConfigError: the folder holds something else, or an experiment is impossible; nothing
                was written.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; choose another folder")
        for name, what in {EXPERIMENT: "a single run", STUDY: "a study"}.items():
            if (folder / name).exists():
                raise ConfigError(f"{folder} holds {what}; choose another folder")
        asked = self._told()
        if (folder / TUNING).exists():
            with readable(folder / TUNING):
                there = read_json(folder / TUNING)
            if changed := [key for key, value in asked.items() if there.get(key) != value]:
                raise ConfigError(
                    f"{folder} holds another tuning ({', '.join(changed)} "
                    f"{'differs' if len(changed) == 1 else 'differ'}); choose another folder"
                )
        remove_leftovers(folder)
        names = dict[str, Experiment]()
        for contender in self.contenders:
            for candidate in self.distinct(contender):
                for name, experiment in self.runs(contender, candidate).values():
                    if name in names:
                        raise ConfigError(f"two candidates would have the folder {name}")
                    names[name] = experiment
        for name, experiment in names.items():
            check(Journal(folder / name), experiment, resume=True)
            prepare(experiment, (folder / name / CHECKPOINT).exists())
        write_json(folder / TUNING, {**asked, "command": command})

    def _told(self) -> dict[str, object]:
        """Return all that decides who wins, as `tuning.json` has it."""
        return {
            "scored_on": self.scored_on,
            "base": self.base.identity,
            "contenders": list(self.contenders),
            "candidates": list(self.candidates),
            "rungs": list(self.rungs),
            "seeds": self.seeds,
            "factor": self.factor,
            "extensions": self.extensions,
        }


def check_seeds(keys: Iterable[str]) -> None:
    """Refuse seeds among knobs: with a study's, its deals would have been seen.

    Raises:
        ConfigError: there is one.
    """
    if found := [key for key in keys if key in ("seed", *OWN_SEEDS)]:
        raise ConfigError(f"{found[0]}: tuning has seeds of its own, from {FIRST_SEED} on")


def _listed(rungs: tuple[int, ...]) -> str:
    return ",".join(map(str, rungs)) or "''"


def named(knobs: Mapping[str, Value]) -> str:
    """Return knobs in few words: ``recipe=zc-swish, client.lr=0.05``; nothing: ``all``."""
    return ", ".join(f"{key}={value}" for key, value in knobs.items()) or "all"
