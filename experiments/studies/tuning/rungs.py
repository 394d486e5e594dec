"""Successive halving: play candidates to a rung, compare them, and go on with the best."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from experiments.statistics.endpoints import window
from experiments.statistics.halving import halved
from experiments.studies.tuning.plan import Plan
from experiments.studies.tuning.space import Knobs, beyond
from experiments.studies.workers import Job, Until
from fl.config.parsing import ConfigError
from fl.server.app import prepare
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.tasks import objective

Play = Callable[[Sequence[Job]], Mapping[str, str]]
"""Does jobs, and returns why which of them failed; see `experiments.studies.workers`."""


@dataclass(frozen=True)
class Candidate:
    """What one contender was tried with, at one rung."""

    knobs: Knobs
    rung: int
    scores: Mapping[int, float | None]
    """By seed: see `score`."""
    images: int
    """That its runs had trained on when they came to the rung, over all seeds."""
    added: int = 0
    """With which extension of the grid it came; 0: it was there from the beginning."""
    kept: bool = False
    """Whether it goes on to the next rung; at the last: whether it is the winner."""

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None where a run has no score, which is worse than any."""
        known = [value for value in self.scores.values() if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.scores) else None


@dataclass
class Race:
    """One contender and its candidates."""

    contender: Knobs
    live: list[Knobs]
    added: dict[str, int] = field(default_factory=dict)
    """Candidates that extensions brought, by name, and the number of the extension."""
    extensions: int = 0
    tried: list[Knobs] = field(default_factory=list)
    table: list[Candidate] = field(default_factory=list)
    """All rungs, one after another; within a rung in the order of the candidates."""
    edge: tuple[str, ...] = ()
    """Knobs in which the winner is at an edge of what was tried."""

    @property
    def winner(self) -> Candidate | None:
        """The best candidate of the last rung; None where all of them diverged."""
        best = next(row for row in reversed(self.table) if row.kept)
        return best if best.mean is not None else None

    def at(self, rung: int) -> list[Candidate]:
        """Return the candidates that were compared at a rung."""
        return [row for row in self.table if row.rung == rung]


class TuningFailed(RunFailed):
    """Runs failed before they came to a rung, so that candidates can't be compared.

    Args:
        failed: why, by the name of the run.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        self.failed = failed
        name, reason = next(iter(failed.items()))
        super().__init__(
            f"{len(failed)} run{'s' if len(failed) > 1 else ''} failed, {name}: {reason}"
        )


def tune(
    plan: Plan,
    folder: Path,
    play: Play,
    tell: Callable[[int, Sequence[Race]], None] = lambda rung, races: None,
) -> list[Race]:
    """Find the best candidate of each contender.

    All candidates are played to the first rung, and the best ⌈n/η⌉ go on to the next from where
    they are. If the best is at an edge of its contender's grid, one candidate beyond is played to
    that rung before. Whatever was played before is not played again. So the answer is a function
    of the plan, whoever plays, in whatever order, and however often it is interrupted.

    Args:
        plan: what is tuned; `Plan.begin` has checked it.
        folder: where the runs are written.
        play: does jobs.
        tell: is told of every rung.

    Raises:
        TuningFailed: a run failed before it came to a rung.
    """
    races = [Race(contender, plan.distinct(contender)) for contender in plan.contenders]
    for race in races:
        race.tried = list(race.live)
    for rung in plan.rungs:
        found = _played(plan, folder, play, rung, [(race, race.live) for race in races])
        while new := _extended(plan, races, found):
            found += _played(plan, folder, play, rung, new)
        for race in races:
            _decide(plan, race, rung, [row for whose, row in found if whose is race])
        tell(rung, races)
    return races


def _played(
    plan: Plan, folder: Path, play: Play, rung: int, asked: Sequence[tuple[Race, Sequence[Knobs]]]
) -> list[tuple[Race, Candidate]]:
    """Play candidates to a rung as far as they are not there, and return how they score."""
    runs = {
        (number, place): plan.runs(race.contender, knobs)
        for number, (race, candidates) in enumerate(asked)
        for place, knobs in enumerate(candidates)
    }
    until = () if rung == plan.base.rounds else (partial(Until, rung),)
    jobs = [
        Job(name, experiment, folder / name, until)
        for of_one in runs.values()
        for name, experiment in of_one.values()
        if _round(folder / name) < rung
    ]
    failed = play(jobs) if jobs else {}
    if lost := {name: why for name, why in failed.items() if _round(folder / name) < rung}:
        raise TuningFailed(lost)
    found = []
    for (number, place), of_one in runs.items():
        race, candidates = asked[number]
        lines = {seed: _lines(folder / name, rung) for seed, (name, _) in of_one.items()}
        scores = {seed: score(plan, of_run) for seed, of_run in lines.items()}
        images = sum(line["images"] for of_run in lines.values() for line in of_run)
        knobs = candidates[place]
        row = Candidate(knobs, rung, scores, images, race.added.get(repr(knobs), 0))
        found.append((race, row))
    return found


def _round(folder: Path) -> int:
    """Return the last permanent round of a run; -1 before round 0."""
    lines = Journal(folder).rounds() if folder.exists() else []
    return lines[-1]["round"] if lines else -1


def _lines(folder: Path, rung: int) -> list[dict]:
    return [line for line in Journal(folder).rounds() if 0 < line["round"] <= rung]


def score(plan: Plan, lines: Sequence[Mapping]) -> float | None:
    """Return a run's score at a rung: the mean over the last max(3, ⌈R/10⌉) of R scored rounds.

    A round that `evaluation.every` leaves out is no scored one. None where a network's score is not
    known, since it diverged.

    Args:
        plan: says what is scored.
        lines: of the rounds 1 to the rung.
    """
    every, images = plan.base.evaluation.every, bool(plan.base.data.validation)
    end = plan.base.rounds  # which is always evaluated
    due = [
        line for line in lines if not images or line["round"] % every == 0 or line["round"] == end
    ]
    late = [line[plan.metric] for line in due[-window(len(due)) :]]
    known = [value for value in late if value is not None]
    complete = len(known) == len(late) if images else bool(known)
    return math.fsum(known) / len(known) if complete else None


def _goodness(plan: Plan, row: Candidate) -> float:
    if row.mean is None:
        return -math.inf
    return row.mean if objective(plan.base).primary.larger else -row.mean


def _extended(
    plan: Plan, races: Sequence[Race], found: Sequence[tuple[Race, Candidate]]
) -> list[tuple[Race, Sequence[Knobs]]]:
    """Return what is to be played beyond the edges of grids on which the best candidates are."""
    new = list[tuple[Race, Sequence[Knobs]]]()
    for race in races if plan.extensions is not None else ():
        best = max((row for whose, row in found if whose is race), key=partial(_goodness, plan))
        beside = beyond(race.tried, best.knobs) if best.mean is not None else []
        further = [knobs for knobs in beside if _possible(plan, race, knobs)]
        changed = [key for knobs in further for key in knobs if knobs[key] != best.knobs[key]]
        race.edge = tuple(changed)
        if further and race.extensions < plan.extensions:  # pyrefly: ignore
            race.extensions += 1
            race.added |= {repr(knobs): race.extensions for knobs in further}
            race.tried += further
            race.live += further
            new.append((race, further))
    return new


def _possible(plan: Plan, race: Race, knobs: Knobs) -> bool:
    try:
        for _, run in plan.runs(race.contender, knobs).values():
            prepare(run)
    except ConfigError:
        return False
    return True


def _decide(plan: Plan, race: Race, rung: int, rows: Sequence[Candidate]) -> None:
    """Write a rung into a race's table, and keep who goes on."""
    scores = {number: _goodness(plan, row) for number, row in enumerate(rows)}
    last = rung == plan.rungs[-1]
    kept = halved(scores, len(scores) if last else plan.factor)
    for number, row in enumerate(rows):
        race.table.append(replace(row, kept=number in kept))
    race.live = [rows[number].knobs for number in kept]
