"""The table of `docs/measurements/engines.md` on the mission's job, from the files behind it.

``python -m experiments.bench.page docs/measurements/mission`` prints it.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fl.nn.recipes import find

_CALLED = {
    "fednf": "`fednf run`",
    "loop-per-core": "a bare loop, one a core",
    "flower": "Flower's simulation",
    "pfl": "pfl-research",
}


def reports(folder: Path) -> list[dict]:
    """Return what `fednf bench --out` wrote to a folder on a CPU, by name of file."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def table(found: Sequence[Mapping]) -> Iterator[str]:
    """Yield a row for each network and contender, as lines of Markdown.

    Figures are medians over turns, with the least and the most behind them; memory is that of the
    first turn, which is not timed.
    """
    yield (
        "| rounds | network | contender | whole command, s | × the loops | images/s | × the loops "
        "| of peak | memory, MB | right |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for report in found:
        (rounds,) = (size["rounds"] for size in report["sizes"])
        for case in report["jobs"]:
            recipe = find(case["knobs"]["recipe"]).label
            for name, row in case["contenders"].items():
                cells = [
                    _spread(row["whole"], ".1f"),
                    _spread(row["whole_ratio"], ".2f"),
                    _spread(row["images_per_second"], ",.0f"),
                    _spread(row["ratio"], ".2f"),
                    f"{row['share_of_peak']:.0%}",
                    f"{row['peak_bytes'] / 1e6:,.0f}",
                    f"{100 * row['accuracy']:.1f} %",
                ]
                called = _CALLED.get(name, f"`{name}`")
                yield f"| {rounds} | {recipe} | {called} | {' | '.join(cells)} |"


def _spread(figure: Mapping[str, float], how: str) -> str:
    if figure["least"] == figure["most"] == 1:
        return "1"
    return f"{figure['median']:{how}} ({figure['least']:{how}}–{figure['most']:{how}})"


def main() -> int:
    """Print the table of a folder's files, and return the program's status."""
    if len(sys.argv) != 2 or not (found := reports(Path(sys.argv[1]))):
        sys.stderr.write(
            "give a folder of `fednf bench --out`, such as docs/measurements/mission\n"
        )
        return 2
    sys.stdout.write("\n".join(table(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
