"""What runs measured of their networks, by round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experiments.report.drawing.profiles import Layers
from experiments.report.labels import Group
from experiments.report.results import Results, Run
from fl.server.contents import COMMON, OWN

Networks = dict[int, dict[int, Layers]]
"""Round -> partition -> the layers of that client's network, before averaging."""


@dataclass(frozen=True)
class Signals:
    """What one run measured."""

    run: Run
    shared: dict[int, Layers] = field(default_factory=dict)
    """Round -> the network that it has left, in the common batch."""
    clients: Networks = field(default_factory=dict)
    """Clients' networks in the common batch. There are none where the server has only a part of
    them, and in runs of earlier versions."""
    own: Networks = field(default_factory=dict)
    """Clients' networks, each in a batch of its own images."""
    images: dict[tuple[int, int | None, str], int] = field(default_factory=dict)
    """Round, partition (None: the shared network) and batch -> how many images it had."""
    statistics: dict[int, list[Mapping]] = field(default_factory=dict)
    """Round -> of each client, how far its running statistics are from the shared ones, by layer;
    see `fl.server.watching.divergence.gaps`."""
    divergence: dict[int, Mapping] = field(default_factory=dict)
    """Round -> how far clients are apart; see `fl.server.watching.divergence.Divergence`."""


def read(results: Results) -> list[Signals]:
    """Read the signals of every contender and condition: of its lowest seed that has any.

    One seed, so that a report of many runs stays quick. Unfinished runs count where none is
    finished. A ledger has no signals.

    Raises:
        ConfigError: a file can't be read.
    """
    found: dict[tuple[Group, Group], Signals] = {}
    for run in results.finished or results.runs:
        key = run.condition, run.series
        if key not in found and run.journal and (lines := run.journal.signals()):
            found[key] = _sorted_out(run, lines)
    return [found[key] for key in sorted(found)]


def conditions(found: Sequence[Signals]) -> list[Group]:
    """Return the conditions under which anything was measured, in order."""
    return sorted({one.run.condition for one in found})


def series(found: Sequence[Signals]) -> list[Group]:
    """Return the contenders of which anything was measured, in order."""
    return sorted({one.run.series for one in found})


def whose(run: Run) -> dict[str, object]:
    """Return the first columns of a row about a run."""
    return {"series": str(run.series), "condition": str(run.condition), "seed": run.seed}


def _sorted_out(run: Run, lines: Sequence[Mapping]) -> Signals:
    found = Signals(run)
    for line in lines:
        number = line["round"]
        if "divergence" in line:
            if line["divergence"]["clients"] > 1:  # one client is nowhere apart from another
                found.divergence[number] = line["divergence"]
            continue
        partition = line["partition"]
        batch = line.get("batch", COMMON if partition is None else OWN)  # as it always was
        found.images[number, partition, batch] = line["images"]
        if "statistics" in line:
            found.statistics.setdefault(number, []).append(line["statistics"])
        if partition is None:
            found.shared[number] = line["layers"]
        elif batch == COMMON:
            found.clients.setdefault(number, {})[partition] = line["layers"]
        else:
            found.own.setdefault(number, {})[partition] = line["layers"]
    return found
