"""What a declaration asks for: how many comparisons, and which runs before the next look."""

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.report import labels, verdicts
from experiments.report.results import Results, join
from experiments.report.verdicts import Block, ByBlock, Key
from experiments.studies import ledger
from fl.config.parsing import ConfigError
from fl.config.parts.contrasts import AFTER, COMPARED
from fl.server.contents import RESULT
from fl.simulation.study import Study, block_of

if TYPE_CHECKING:
    from experiments.statistics.racing import Race


def comparisons(study: Study) -> int:
    """Return how many comparisons a study declares, those of runs that are still to come, too.

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
    return len(found)


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

    Without looks they are all. With looks, a declared comparison gets the seeds that it asks for.
    Its reference, and those under its condition that nothing was declared of, get as many as the
    comparison there that asks for most. A condition without a declared comparison gets all.

    Args:
        study: the study.
        stands: see `standing`.
    """
    if stands is None:
        return study.folders()
    most: dict[labels.Group, int] = {}
    for (_, condition), n in stands.asked.items():
        most[condition] = max(n, most.get(condition, 0))
    place = {block: number for number, block in enumerate(study.blocks)}
    return [
        name
        for name, (cell, block) in zip(study.folders(), _places(study), strict=True)
        if place[block] < stands.asked.get(cell, most.get(cell[1], len(place)))
    ]


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
    return list(zip(cells, map(block_of, study.experiments), strict=True))


def _differences(study: Study, results: Results | None) -> ByBlock:
    """Return what the study declared to compare, of its own experiments that are done to the end.

    Other runs that lie in the folder, and those of fewer rounds, don't count.
    """
    runs = {ledger.asked(run.header): run for run in results.finished} if results else {}
    found: dict[Key, dict[Block, float]] = {}
    for (cell, block), experiment in zip(_places(study), study.experiments, strict=True):
        if run := runs.get((experiment.rounds, experiment.identity)):
            found.setdefault(cell, {})[block] = run.measure.goodness(run.outcome)
    differences: ByBlock = {}
    for (series, condition), other in verdicts.compared(study).items():
        mine, theirs = found.get((series, condition), {}), found.get((other, condition), {})
        shared = [block for block in study.blocks if block in mine and block in theirs]
        differences[series, condition] = {block: mine[block] - theirs[block] for block in shared}
    return differences
