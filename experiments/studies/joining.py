"""The runs of several folders and tables as one: each run told once, each study's words kept."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.studies import ledger
from experiments.studies.ledger import Kept
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.config.parts.contrasts import COMPARED
from fl.nn import relevant
from fl.reproducibility.checking import read_json
from fl.server.contents import EXPERIMENT, readable
from fl.simulation.study import STUDY

Said = Mapping[str, Any]
_NOTHING: Said = {"contrasts": {}, "tables": []}
"""What a study declared that declared nothing."""


@dataclass(frozen=True)
class Source:
    """A study, or a folder of runs of no study."""

    said: Said
    """`name`, `command`, `published` and `contrasts`; `question`, where somebody asked one."""
    runs: list[Kept] = field(default_factory=list)


def gather(folders: Sequence[Path], tables: Sequence[Path], out: Path) -> list[Source]:
    """Return all runs by study.

    A run that several have is told once: the one that is finished, or has most rounds, or comes
    first. Where there are several folders, a run's name begins with its folder's. Studies of one
    name, question and declaration are one.

    Args:
        folders: of runs, or that are a run.
        tables: folders with ledgers.
        out: where the report goes; such a folder of runs may be empty.

    Raises:
        ConfigError: a folder has no run, a file can't be read, or two folders have the same
            experiment with other figures.
    """
    found: list[tuple[Path, list[Source]]] = []
    for folder in dict.fromkeys(folders):
        if runs := ledger.below(folder):
            found.append((folder, [Source(_said(folder, runs), runs)]))
        elif not (folder == out and tables):
            raise ConfigError(f"{folder} holds no run to report (no {EXPERIMENT} in it or below)")
    found += [(folder, _by_study(ledger.read(folder))) for folder in dict.fromkeys(tables)]
    if not any(sources for _, sources in found):
        raise ConfigError(f"{', '.join(map(str, tables))}: the tables have no run to report")
    if len(found) == 1:
        return found[0][1]
    names = _names([folder for folder, _ in found])
    sources = [
        one for name, (_, own) in zip(names, found, strict=True) for one in _named(name, own)
    ]
    told = _once(run for source in sources for run in source.runs)
    merged: dict[tuple, Source] = {}
    for source in sources:
        key = _key(source.said)
        here = merged[key] = _with_all(merged.get(key, Source(source.said, [])), source.said)
        runs = {one: told[one] for one in map(_experiment, (*here.runs, *source.runs))}
        here.runs[:] = runs.values()
    return list(merged.values())


def _said(folder: Path, runs: Sequence[Kept]) -> Said:
    """Return what a folder says of itself: its study's words, those of its ledger, or its name."""
    known: dict[str, Any] = {"name": folder.resolve().name, "command": "", "published": ""}
    known |= {**_NOTHING, **next((run.studies[-1] for run in runs if run.studies), {})}
    path = folder / STUDY
    if path.exists():
        with readable(path):
            study = read_json(path)
            texts = [key for key in ("name", "question", "command", "published") if key in study]
            known |= {key: str(study[key]) for key in texts}
            known["contrasts"] = dict(study.get("contrasts") or {})
            known["tables"] = list(study.get("tables") or [])
    return known


def _with_all(source: Source, said: Said) -> Source:
    """Return a study of which another folder says how many comparisons it declared: the more."""
    counts = [one["contrasts"].get(COMPARED, 0) for one in (source.said, said)]
    if not any(counts):
        return source
    contrasts = {**source.said["contrasts"], COMPARED: max(counts)}
    return replace(source, said={**source.said, "contrasts": contrasts})


def _by_study(kept: Iterable[Kept]) -> list[Source]:
    """Return the runs of tables by the studies that their rows name."""
    found: dict[tuple, Source] = {}
    for run in kept:
        for study in run.studies:
            said = {"name": "", "command": "", "published": "", **_NOTHING, **study}
            found.setdefault(_key(said), Source(said)).runs.append(run)
    return list(found.values())


def _key(said: Said) -> tuple:
    """Return what makes a study the same; runs of no study are those of a folder's name."""
    contrasts = {key: value for key, value in said["contrasts"].items() if key != COMPARED}
    question = said.get("question") if said["command"] else None
    return said["name"], question, json.dumps(contrasts, sort_keys=True)


def _names(folders: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as tell them apart; one that is there twice, so.

    The tables of a folder may be given beside it, and have its name and a number.
    """
    parts = [folder.resolve().parts for folder in folders]
    longest = max(map(len, parts))
    names = ["/".join(mine[-n:]) for n in range(1, longest + 1) for mine in parts]
    rounds = [names[at : at + len(parts)] for at in range(0, len(names), len(parts))]
    found = next((one for one in rounds if len(set(one)) == len(set(parts))), rounds[-1])
    return [name if found.index(name) == n else f"{name}-{n + 1}" for n, name in enumerate(found)]


def _named(name: str, sources: Sequence[Source]) -> list[Source]:
    """Return sources whose runs say which folder they are from."""
    found = {id(run): run for source in sources for run in source.runs}
    named = {key: _renamed(run, name) for key, run in found.items()}
    return [replace(s, runs=[named[id(run)] for run in s.runs]) for s in sources]


def _renamed(run: Kept, name: str) -> Kept:
    """Return a run under the name of its folder; one that is the folder keeps the name alone."""
    whole = name if run.name == name.rpartition("/")[2] else f"{name}/{run.name}"
    return replace(run, name=whole, folder=f"{name}/{run.folder}".rstrip("/"))


def _once(runs: Iterable[Kept]) -> dict[frozenset, Kept]:
    """Return the best telling of each experiment.

    Raises:
        ConfigError: two tell one otherwise.
    """
    told: dict[frozenset, Kept] = {}
    for run in runs:
        known = told.setdefault(key := _experiment(run), run)
        if known is not run:
            _check_alike(known, run)
            told[key] = max(known, run, key=_worth)  # the first of equals
    return told


def _experiment(run: Kept) -> frozenset:
    """Return the knobs that bear on a run, also those that it is from before."""
    return frozenset(relevant({**Experiment().to_flat(), **run.header["knobs"]}).items())


def _worth(run: Kept) -> tuple[bool, int, bool]:
    return run.result is not None, len(run.rounds), run.journal is not None


def _check_alike(one: Kept, other: Kept) -> None:
    """Check that two runs of one experiment are the same run as far as both went.

    Raises:
        ConfigError: they are not.
    """
    what = next(
        (f"figures in round {a['round']}" for a, b in zip(one.rounds, other.rounds, strict=False)
         if _figures(a) != _figures(b)), "",
    )  # fmt: skip
    if not what and one.result and other.result and _model(one) != _model(other):
        what = f"networks at their end (model_sha256 {_model(one):.8} and {_model(other):.8})"
    if what:
        raise ConfigError(
            f"{one.name} and {other.name} have the same knobs and seed, and other {what}; leave "
            "one of them out"
        )


def _figures(line: Mapping) -> str:
    """Return what a round came to; seconds differ from machine to machine."""
    kept = {k: v for k, v in line.items() if k.startswith(("test_", "validation_", "train_loss"))}
    return json.dumps({"round": line["round"], **kept}, sort_keys=True)


def _model(run: Kept) -> str:
    return str((run.result or {}).get("model_sha256"))
