"""``python -m experiments.studies.answer FOLDER`` prints what the tables in a folder say."""

import sys
from pathlib import Path

from experiments.studies.answer import found

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    noise = found.ended(folder / "noise")
    tables = [found.noise(noise), found.pairs(noise), found.orders(noise)]
    if (folder / "cause").exists():
        tables += [found.parts_of_zc_swish(found.ended(folder / "cause"))]
    tables += [found.hypotheses(found.claims(folder))]
    sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables) + "\n")
