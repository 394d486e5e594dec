"""Which runs a study with looks asks for next: those of comparisons that are not decided."""

from pathlib import Path

from experiments.report import labels, verdicts
from experiments.report.results import join
from experiments.studies import ledger
from fl.config.parts.contrasts import AFTER
from fl.server.contents import RESULT
from fl.simulation.study import Study


def wanted(study: Study, folder: Path) -> list[str]:
    """Return the names of the runs that are to be there before the next look, done ones too.

    Without looks they are all. With looks, a condition gets the blocks of the next look while a
    declared comparison in it is undecided: its reference, those that are undecided, and who takes
    part without being asked about. After the last look there are none. What was declared when runs
    were done is exploratory, so that no look decides it, and all runs are wanted.

    Args:
        study: the study, whose folder is begun.
        folder: where its runs are.

    Raises:
        ConfigError: runs can't be read.
    """
    if not study.contrasts or not (looks := study.contrasts.looks):
        return study.folders()
    declared, decided, blocks = verdicts.compared(study), set(), looks[0]
    if any(folder.glob(f"*/{RESULT}")) or (folder / ledger.FOLDER).exists():
        results = join([folder], [], folder)
        if results.contrasts.get(AFTER):
            return study.folders()
        stands = verdicts.race(results)
        ahead = declared - set(verdicts.family(results))  # whose first run is to come
        blocks = looks[0] if ahead else stands.wanted
        decided = declared - ahead - set(stands.live)
    flats = [experiment.to_flat() for experiment in study.experiments]
    cells = labels.group(flats, study.contrasts.reference)
    drawn = [(int(flat["seed"]), *labels.seeds(flat)) for flat in flats]
    first = set(sorted(set(drawn))[:blocks])
    going_on = {condition for _, condition in declared - decided}
    return [
        name
        for name, cell, block in zip(study.folders(), cells, drawn, strict=True)
        if block in first and cell[1] in going_on and cell not in decided
    ]


def looked_at(study: Study, folder: Path) -> str:
    """Say in a line what the last look at a study's runs found; empty where there was none."""
    if not study.contrasts or not study.contrasts.looks:
        return ""
    if not (made := verdicts.race(join([folder], [], folder)).looks):
        return ""
    told = [f"{who} ({where}): {one}" for (who, where), one in sorted(made[-1].judged.items())]
    return f"look after {made[-1].n} seeds: {'; '.join(told)}"
