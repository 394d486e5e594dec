"""A study: a question, and the experiments whose results answer it."""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fl.config import Experiment
from fl.config.components import sources
from fl.config.components.modules import modules
from fl.config.parsing import ConfigError, Value
from fl.config.parts.contrasts import Contrasts
from fl.config.parts.published import Published
from fl.config.parts.winners import read_winners
from fl.config.renamed import modernize
from fl.config.run import block_of
from fl.data.catalogue import data_beside
from fl.nn import relevant
from fl.reproducibility.checking import read_json
from fl.reproducibility.files import write_json
from fl.reproducibility.temporary import remove_leftovers
from fl.server.app import prepare
from fl.server.contents import CHECKPOINT, EXPERIMENT, RESULT, readable
from fl.server.journal import Journal
from fl.server.opening import check, differences

STUDY = "study.json"
NEEDLESS = "needless"  # in it: runs that no look asks for


@dataclass(frozen=True)
class Study:
    """A question and its experiments.

    Raises:
        ConfigError: there is no experiment, or one is there twice.
    """

    name: str
    question: str
    experiments: tuple[Experiment, ...]
    published: str = ""
    """What others published on the question, under their conditions; empty where nothing is."""
    contrasts: Contrasts | None = None
    """What is compared with what; None: nothing was declared, so all is exploratory."""
    tables: tuple[Published, ...] = ()
    """Tables that others published, whose numbers the report puts beside ours."""

    def __post_init__(self) -> None:
        if not self.experiments:
            raise ConfigError(f"study {self.name} has no experiments")
        names = self.folders()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"study {self.name} has the experiment {twice} twice")
        flats = [relevant(one.to_flat()) for one in self.experiments]
        for declared in (*filter(None, [self.contrasts]), *self.tables):
            declared.check(flats)
        if self.contrasts:
            self.contrasts.check_looks(len(self.blocks))

    @property
    def blocks(self) -> list[tuple[int, ...]]:
        """The distinct draws of its experiments, in their order: what pairs runs."""
        return list(dict.fromkeys(block_of(one.to_flat()) for one in self.experiments))

    def folders(self) -> list[str]:
        """Name every experiment by the knobs in which it differs from others, seed last."""
        flats = [relevant(experiment.to_flat()) for experiment in self.experiments]
        keys = dict.fromkeys(key for flat in flats for key in flat)
        varying = [key for key in keys if len({flat[key] for flat in flats if key in flat}) > 1]
        varying = [key for key in varying if key not in ("recipe", "seed")]
        return [
            "_".join(
                [str(flat["recipe"])]
                + [spelt(key, flat[key]) for key in varying if key in flat]
                + [f"seed-{flat['seed']}"]
            )
            for flat in flats
        ]

    def fixing(self, knobs: Mapping[str, Value]) -> "Study":
        """Return the study with some knobs at the same values in every experiment.

        Raises:
            ConfigError: the study is about such a knob, or an experiment does not allow a value.
        """
        knobs = modernize(knobs)
        flats = [experiment.to_flat() for experiment in self.experiments]
        for key in knobs:
            if len({flat.get(key) for flat in flats}) > 1:
                raise ConfigError(f"study {self.name} is about {key}; leave that to it")
        fixed = [experiment.replace(knobs) for experiment in self.experiments]
        name = "_".join([self.name, *(spelt(key, value) for key, value in knobs.items())])
        return replace(self, name=name, experiments=tuple(fixed))

    def tuned(self, winners: str | Path) -> "Study":
        """Return the study with each contender at the knobs that `fednf tune` found for it.

        Args:
            winners: the `winners.toml` that tuning wrote.

        Raises:
            ConfigError: an experiment is none of the contenders, or has a seed that tuning used;
                or the study compares values of a knob that was tuned.
        """
        rows, seeds = read_winners(Path(winners), Experiment().to_flat())
        experiments, before = list[Experiment](), dict[tuple[str, str], Value]()
        for experiment in self.experiments:
            flat, used = experiment.to_flat(), {experiment.seed, *experiment.seeds.values()}
            if used & seeds:
                raise ConfigError(
                    f"study {self.name} has the seed {min(used & seeds)}, on which {winners} was "
                    "tuned; take another"
                )
            fits = (n for n, row in rows.items() if row["contender"].items() <= flat.items())
            if (number := next(fits, None)) is None:
                asked = dict.fromkeys(key for row in rows.values() for key in row["contender"])
                whose = ", ".join(f"{key}={flat.get(key)}" for key in asked)
                raise ConfigError(f"{winners} has no winner for {whose}; tune that contender, too")
            for key in rows[number]["knobs"]:
                if before.setdefault((number, key), flat[key]) != flat[key]:
                    raise ConfigError(f"study {self.name} is about {key}; leave {winners} out")
            experiments.append(experiment.replace(rows[number]["knobs"]))
        return replace(self, name=f"{self.name}_tuned", experiments=tuple(experiments))

    def begin(
        self,
        folder: Path,
        command: str,
        comparisons: Sequence[tuple[str, str]] = (),
        kept: Collection[str] = (),
        declared: Mapping[str, object] | None = None,
    ) -> list[str]:
        """Check that every experiment can be written below a folder, then write the question there.

        Args:
            folder: the study's.
            command: that repeats it.
            comparisons: that its contrasts declare, by contender and condition.
            kept: its runs that a ledger has, by the names of their folders.
            declared: what the ledger says its contrasts were.

        Returns:
            What a reader should know of the runs that are there, a line each.

        Raises:
            ChangedStudy: a run there was begun with other knobs or other code.
            ConfigError: the folder holds something else, or an experiment is impossible; nothing
                was written.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; choose another folder")
        if (folder / EXPERIMENT).exists():
            raise ConfigError(f"{folder} holds a single run; choose another folder")
        there = _study_in(folder)
        if there["name"] not in (None, self.name):
            raise ConfigError(f"{folder} holds the study {there['name']}; choose another folder")
        told = self._told(folder)
        remove_leftovers(folder)
        for name, experiment in zip(self.folders(), self.experiments, strict=True):
            check(Journal(folder / name), experiment, resume=True)
            prepare(experiment, (folder / name / CHECKPOINT).exists())
        about: dict = {
            "name": self.name,
            "question": self.question,
            "command": command,
            "published": self.published,
            "runs": {n: e.rounds for n, e in zip(self.folders(), self.experiments, strict=True)},
        }
        if self.contrasts:
            here = {path.parent.name for path in folder.glob(f"*/{RESULT}")}
            before = there.get("contrasts") or (not here and declared) or {}
            done = len(here.union(kept))
            looked_at = {
                "cells": [list(cell) for cell in comparisons],
                "blocks": [list(block) for block in self.blocks],
                "rounds": sorted({experiment.rounds for experiment in self.experiments}),
            }
            about["contrasts"] = self.contrasts.declared(before, done, len(comparisons), looked_at)
        about |= {"tables": [table.told() for table in self.tables]} if self.tables else {}
        write_json(folder / STUDY, about)
        return told

    def _told(self, folder: Path) -> list[str]:
        """Return what became of the runs in a folder: which go on, and which nobody asks for now.

        Raises:
            ChangedStudy: knobs of a run are not as they were.
        """
        there = {path.parent.name: Journal(path.parent) for path in folder.glob(f"*/{EXPERIMENT}")}
        asked = dict(zip(self.folders(), self.experiments, strict=True))
        changed, told = [], []
        for name in sorted(there.keys() & asked.keys()):
            header, experiment = there[name].header(), asked[name]
            changed += [f"{name}: {_change(*found)}" for found in differences(header, experiment)]
            was = header["knobs"].get("rounds")
            if experiment.rounds != was:
                told.append(f"{name}: rounds was {was}, is {experiment.rounds}; the run goes on")
        if changed:
            raise ChangedStudy(folder, changed)
        if gone := sorted(there.keys() - asked.keys()):
            told.append(
                f"no longer in the study, and still in its report: {', '.join(gone[:MOST_TOLD])}"
                f"{' …' if len(gone) > MOST_TOLD else ''} ({len(gone)} runs)"
            )
        return told


MOST_TOLD = 5
"""Changes of a study that are told."""


class ChangedStudy(ConfigError):
    """A study is not the one whose runs are in its folder.

    Args:
        folder: the study's.
        changes: what changed, a line for each knob of each experiment.
    """

    def __init__(self, folder: Path, changes: list[str]) -> None:
        self.changes = changes
        more = f" and {len(changes) - 1} more changes" if len(changes) > 1 else ""
        super().__init__(
            f"{folder} holds this study as it was before: {changes[0]}{more}; put the study back, "
            "or choose another folder"
        )


def _change(key: str, there: object, here: object) -> str:
    """Say how a knob of a run changed."""
    if key == "components" and there and here:
        return str(sources.change(str(there), str(here)))
    if key in ("components", "run.start-sha256"):  # long, and nothing that one reads
        return f"{key} changed"
    return f"{key} was {there}, is {here}"


def _study_in(folder: Path) -> dict:
    """Return what a folder's `study.json` says, which has a name; it is None without a file."""
    with readable(path := folder / STUDY):
        found = read_json(path) if path.exists() else {"name": None}
        return {**found, "name": found["name"]}


def spelt(key: str, value: object) -> str:
    """Spell a knob in a folder's name: `iid` speaks for itself, 0.1 and `auto` need the knob's."""
    speaks = isinstance(value, str) and value not in ("auto", "none")
    text = re.sub(r"[^\w.,:=+-]+", "-", str(value)).strip("-")
    return text if speaks else f"{key.rpartition('.')[2]}-{text}"


def grid(base: Experiment, *axes: Iterable[dict]) -> tuple[Experiment, ...]:
    """Return the product of axes; each axis is a list of flat keys with values to set together.

    Of experiments that differ only in knobs that don't bear on them (`partition.alpha` where the
    partition is iid), the first is kept.
    """
    steps = itertools.product(*reversed([list(axis) for axis in axes]))  # the first varies fastest
    experiments = [
        base.replace({k: v for step in reversed(together) for k, v in step.items()})
        for together in steps
    ]
    distinct: dict[frozenset, Experiment] = {}
    for experiment in experiments:
        distinct.setdefault(frozenset(relevant(experiment.to_flat()).items()), experiment)
    return tuple(distinct.values())


def each(key: str, values: Iterable[Value]) -> list[dict[str, Value]]:
    """Return an axis for `grid` along which one flat key changes."""
    return [{key: value} for value in values]


def from_file(path: Path) -> Study:
    """Run a Python file and return the study that it names ``STUDY``.

    A path of data that is not found from where the command was typed is looked for beside the file.

    The file becomes no module that others could import, and no bytecode is left beside it.

    Raises:
        ConfigError: the file can't be run, or has no STUDY.
    """
    if not path.is_file():
        raise ConfigError(f"no study file {path}")
    text = sources.as_text(sources.gather(path))
    study = getattr(modules(text).module(path.stem), "STUDY", None)
    if not isinstance(study, Study):
        raise ConfigError(f"{path} has no STUDY = Study(name, question, experiments)")
    return replace(study, experiments=tuple(_beside(e, path.parent) for e in study.experiments))


def _beside(knobs: Experiment, folder: Path) -> Experiment:
    """Return an experiment of a file; paths of data and weights beside it are written whole."""
    named = {"data.name": knobs.data.name, "run.start-from": knobs.run.start_from}
    there = data_beside(named, folder)
    return knobs if there == named else knobs.replace(there)
