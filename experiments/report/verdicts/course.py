"""The course of a study: what it declares to compare, and which runs it needs before each look."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.report import labels, verdicts
from experiments.report.results import Results, join
from experiments.report.verdicts import Block, ByBlock, Key
from experiments.statistics.endpoints import differences
from experiments.studies import ledger
from fl.config.parsing import ConfigError
from fl.config.parts.contrasts import AFTER, COMPARED
from fl.config.run import block_of
from fl.reproducibility.checking import read_json
from fl.reproducibility.files import write_json
from fl.server.contents import RESULT
from fl.simulation.study import NEEDLESS, STUDY, Study

if TYPE_CHECKING:
    from experiments.statistics.racing import Race


def comparisons(study: Study) -> list[tuple[str, str]]:
    """Return the comparisons that a study declares, those of runs that are still to come, too.

    They are told by contender and condition.

    Raises:
        ConfigError: it has looks, and there is nothing to look at, or nothing here can judge.
    """
    found = verdicts.compared(study)
    if study.contrasts and (looks := study.contrasts.looks):
        said = verdicts.missing() or (None if found else "nothing is compared")
        blocks: dict[Key, set[Block]] = {}
        for cell, block in _places(study):
            blocks.setdefault(cell, set()).add(block)
        for (series, condition), other in found.items():
            for who in (series, other):
                if set(study.blocks) - blocks[who, condition]:
                    said = said or f"{who} does not have all seeds under {condition}"
        if said:
            raise ConfigError(f"contrasts: looks={list(looks)}: {said}")
    return [(str(series), str(condition)) for series, condition in found]


def standing(study: Study, folder: Path) -> "Race[Key] | None":
    """Replay a study's looks on those of its runs that are done.

    None where it has no looks; and where it declared them when runs were done, so that its
    comparisons are exploratory and no look decides them.

    Args:
        study: the study, whose folder is begun.
        folder: where its runs are.

    Raises:
        ConfigError: runs can't be read.
    """
    if not study.contrasts or not (looks := study.contrasts.looks):
        return None
    done = any(folder.glob(f"*/{RESULT}")) or (folder / ledger.FOLDER / ledger.RUNS).exists()
    results = join([folder], [], folder) if done else None
    if results and results.contrasts.get(AFTER):
        return None
    found, least, size = _differences(study, results), None, 0
    if results:
        least, size = verdicts.margin(results), int(results.contrasts.get(COMPARED, 0))
    return verdicts.race(found, study.blocks, least, looks, max(size, len(found)))


def wanted(study: Study, stands: "Race[Key] | None") -> list[str]:
    """Return the names of the runs that are to be there before the next look, done ones too.

    Without looks they are all, in the study's order. With looks they come seed by seed, and a
    declared comparison gets the seeds that it needs. Its reference, and those under its condition
    that nothing was declared of, get as many as the comparison there that needs most. A condition
    without a declared comparison gets all.

    Args:
        study: the study.
        stands: see `standing`.
    """
    if stands is None:
        return study.folders()
    most: dict[labels.Group, int] = {}
    for (_, condition), n in stands.needs.items():
        most[condition] = max(n, most.get(condition, 0))
    place = {block: number for number, block in enumerate(study.blocks)}
    found = [
        (place[block], name)
        for name, (cell, block) in zip(study.folders(), _places(study), strict=True)
        if place[block] < stands.needs.get(cell, most.get(cell[1], len(place)))
    ]
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def between_looks(study: Study, folder: Path, tell: Callable[[str], None]) -> Iterator[list[str]]:
    """Yield the names of the runs that are to do before each look of a begun study.

    A run that fails is not tried again. A look that needs it is not made. Runs that no look asks
    for are noted in the study's file, so that nobody waits for them.

    Args:
        study: the study, which has looks.
        folder: where its runs are, of which those that were yielded are done at the next step.
        tell: is told what looks found.
    """
    given, stands = set[str](), standing(study, folder)
    asked = wanted(study, stands)
    while True:
        yield asked
        given |= set(asked)
        stands = standing(study, folder)
        if told := looked_at(stands):
            tell(told)
        if not (asked := [name for name in wanted(study, stands) if name not in given]):
            break
    needless = sorted(set(study.folders()) - given)
    if needless and stands and stands.over:
        write_json(folder / STUDY, {**read_json(folder / STUDY), NEEDLESS: needless})
        tell(f"runs that are not needed, since what they compare is decided: {len(needless)}")


def looked_at(stands: "Race[Key] | None") -> str:
    """Say in a line what the last look found; empty where there was none."""
    if stands is None or not stands.looks:
        return ""
    last = stands.looks[-1]
    told = [f"{who} ({where}): {one}" for (who, where), one in sorted(last.judged.items())]
    return f"look after {last.n} seeds: {'; '.join(told)}"


def _places(study: Study) -> list[tuple[Key, Block]]:
    """Return each experiment's cell and block."""
    flats = [experiment.to_flat() for experiment in study.experiments]
    cells = labels.group(flats, study.contrasts.reference if study.contrasts else ())
    return list(zip(cells, (block_of(flat) for flat in flats), strict=True))


def _differences(study: Study, results: Results | None) -> ByBlock:
    """Return what the study declared to compare, of its own experiments that are done to the end.

    Other runs that lie in the folder, and those of fewer rounds, don't count.
    """
    runs = {ledger.asked(run.header): run for run in results.finished} if results else {}
    found: dict[Key, dict[Block, float]] = {}
    for (cell, block), experiment in zip(_places(study), study.experiments, strict=True):
        if run := runs.get((experiment.rounds, experiment.identity)):
            found.setdefault(cell, {})[block] = run.measure.goodness(run.outcome)
    told: ByBlock = {}
    for (series, condition), other in verdicts.compared(study).items():
        mine, theirs = found.get((series, condition), {}), found.get((other, condition), {})
        told[series, condition] = differences(mine, theirs)
    return told
