"""The tables of the page on faulty clients, redrawn from the committed rows of its study."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import fl

DOCS = Path(fl.__file__).parents[1] / "docs"
NETWORKS = ("batchnorm", "groupnorm", "zc-swish", "salunet")
RULES = {
    "fedavg": "FedAvg",
    "FedMedian": "median",
    "FedTrimmedAvg": "trimmed mean",
    "Krum": "Krum",
    "max-norm": "FedAvg, `max-norm` 20",
}
Cells = dict[tuple[str, float, str, str], dict[int, float]]
"""Fault, share, rule and network -> seed -> accuracy in per cent."""


def cells() -> Cells:
    """Return what the committed runs ended with."""
    found: Cells = defaultdict(dict)
    with (DOCS / "studies/faults/runs.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rule = row["strategy.kind"].rpartition(":")[2]
            rule = rule if float(row["strategy.max-norm"]) == 0 else "max-norm"
            kind = row["faults.kind"]
            share = 0.0 if kind == "none" else float(row["faults.share"])
            key = kind, share, rule, row["recipe"]
            found[key][int(row["seed"])] = 100 * float(row["final_accuracy"])
    return found


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def cell(found: Cells, kind: str, share: float, rule: str, network: str) -> str:
    """Write a cell: mean ± deviation over seeds, and in brackets what the fault takes."""
    scores, plain = found[kind, share, rule, network], found["none", 0.0, rule, network]
    if not scores:
        return ""
    spread = f" ± {statistics.stdev(scores.values()):.1f}" if len(scores) > 1 else ""
    text = f"{statistics.mean(scores.values()):.1f}{spread}"
    if kind == "none":
        return text
    lost = [score - plain[seed] for seed, score in scores.items() if seed in plain]
    if not lost:
        return text
    return f"{text} ({signed(statistics.mean(lost))}; {signed(min(lost))} to {signed(max(lost))})"


def rows(found: Cells, kind: str, share: float, networks: tuple[str, ...]) -> list[str]:
    """Return the lines of the table of a fault, a rule each; those that were not run are absent."""
    lines = []
    for rule, label in RULES.items():
        counts = {len(found[kind, share, rule, network]) for network in networks}
        if counts != {0}:
            (seeds,) = counts
            text = [cell(found, kind, share, rule, network) for network in networks]
            lines.append(f"| {label} | {seeds} | {' | '.join(text)} |")
    return lines


def test_every_table_of_the_page_is_what_the_committed_rows_come_to():
    found = cells()
    page = (DOCS / "measurements/faults.md").read_text(encoding="utf-8").splitlines()
    for kind, share in sorted({(kind, share) for kind, share, _, _ in found}):
        for line in rows(found, kind, share, NETWORKS[:1] if kind == "statistics" else NETWORKS):
            assert line in page, f"{kind}, {share}: {line}"
