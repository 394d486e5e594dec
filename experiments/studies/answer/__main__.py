"""``python -m experiments.studies.answer FOLDER`` prints what the tables in a folder say."""

import sys
from pathlib import Path

from experiments.studies.answer import found
from experiments.studies.answer.rows import ended

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    noise = ended(folder / "noise")
    tables = [found.noise(noise), found.pairs(noise), found.orders(noise)]
    tables += [found.at_another_s_rate(folder)]
    if (folder / "permuted").exists():
        tables += [found.permuted(ended(folder / "permuted"))]
    if cause := found.runs_of_cause(folder):
        tables += [found.parts_of_zc_swish(cause), found.pairs_of_cause(cause)]
    claims = list(found.claims(folder))
    tables += [found.hypotheses(claims)] if claims else []
    sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables) + "\n")
