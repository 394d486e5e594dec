"""``python -m experiments.studies.answer FOLDER`` prints what the tables in a folder say."""

import sys
from collections.abc import Iterable
from pathlib import Path

from experiments.studies import ledger
from experiments.studies.answer.judged import at_one, at_the_last_look, by_batch, with_one
from experiments.studies.answer.rows import ended
from experiments.studies.answer.tables import averaging, controls, found, micro_batches, scrutiny
from experiments.studies.answer.tables.secondary import secondary
from fl.config.parsing import ConfigError


def main() -> int:
    """Print all tables whose rows are there, and return the program's status."""
    if len(sys.argv) != 2:
        sys.stderr.write("give one folder, such as docs/studies/answer\n")
        return 2
    try:
        text = "\n\n".join("\n".join(lines) for lines in _tables(Path(sys.argv[1])))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _tables(folder: Path) -> Iterable[Iterable[str]]:
    noise = ended(folder / "noise")
    yield from (found.noise(noise), found.pairs(noise), controls.orders(noise))
    if (folder / "tuning/late").exists():
        yield from (found.halved(folder), found.tried(folder))
    if (folder / "tuning/batch-late").exists():
        yield found.tried_with_one(folder)
    yield controls.at_another_s_rate(folder)
    for name, table in (
        ("permuted", controls.permuted),
        ("permuted/again", controls.permuted_again),
    ):
        if (folder / name / "runs.csv").exists():
            yield table(ended(folder / name))
    if cause := found.runs_of_cause(folder):
        yield from (found.parts_of_zc_swish(cause), controls.pairs_of_cause(cause))
        if (folder / "cause/late").exists():
            yield from (found.beside_frozen(cause), found.after_the_last_round(folder))
    if looked_at := at_the_last_look(folder):
        yield from (found.accuracies(looked_at), found.beside_batchnorm(looked_at))
        yield secondary(folder)
        yield from scrutiny.tables(folder)
    if of_size := by_batch(folder):
        yield found.batches(of_size)
    if others := with_one(folder):
        yield found.with_one(others)
        if "instancenorm" in others:
            yield found.beside_instance(others)
    if runs := at_one(folder):
        yield micro_batches.skew(runs)
    if (measured := folder / "signals").exists():
        yield from (averaging.before_and_after(measured), averaging.over_rounds(measured))
        if (folder / "primary" / ledger.RUNS).exists():
            yield averaging.machines(folder)
    if (by_statistics := folder / "batch/statistics.csv").exists():
        yield from (micro_batches.by_statistics(by_statistics), micro_batches.last_round(folder))
    if claims := list(found.claims(folder)):
        yield found.hypotheses(claims)


if __name__ == "__main__":
    sys.exit(main())
