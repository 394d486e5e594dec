"""What clients reported of their held-out images: the shared network's answers and their own's."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.report.labels import Group
from experiments.report.results import Results, Run, Spread
from experiments.report.sections import circumstances
from fl.config import Experiment
from fl.data import load, share


@dataclass(frozen=True)
class Report:
    """One client's figures of one round; images are its held-out ones, and answers are right."""

    client: int
    trained: int
    """Images that it trains on."""
    images: int
    shared_right: int
    """Answers of the shared network, as the client received it."""
    own_right: int
    """Answers of the same network after the client trained it."""

    @property
    def own(self) -> float:
        """The own network's accuracy."""
        return self.own_right / self.images

    @property
    def gain(self) -> float:
        """By how much the own network's accuracy exceeds the shared network's."""
        return (self.own_right - self.shared_right) / self.images


@dataclass(frozen=True)
class Scores:
    """One run's reports: those of a round, where images count, and where every client counts."""

    last: tuple[Report, ...]
    """Of the last round in which a client with held-out images replied."""
    latest: tuple[Report, ...]
    """Each client's last one, by client; who never replied has none."""

    @property
    def shared(self) -> float:
        """The shared network's accuracy on all images of the last round."""
        return _share(self.last, [report.shared_right for report in self.last])

    @property
    def own(self) -> float:
        """The accuracy of the clients' own networks, each on its client's, on the same images."""
        return _share(self.last, [report.own_right for report in self.last])

    @property
    def gain(self) -> float:
        """By how much own networks exceed the shared one in the last round."""
        return self.own - self.shared

    @property
    def lowest_tenth(self) -> float:
        """The own accuracy that a tenth of the clients, rounded up, do not exceed: one client's."""
        return sorted(report.own for report in self.latest)[math.ceil(len(self.latest) / 10) - 1]

    @property
    def median(self) -> float:
        """The median over clients of their own accuracies."""
        return statistics.median(report.own for report in self.latest)

    @property
    def losers(self) -> int:
        """Clients whose own network is right less often than the shared one that it came from."""
        return sum(report.gain < 0 for report in self.latest)


@dataclass(frozen=True)
class Served:
    """The scores of one series under one condition, one a seed."""

    runs: tuple[Run, ...]
    """Those that have scores."""
    scores: tuple[Scores, ...]

    def over_seeds(self, figure: str) -> Spread:
        """Return a figure of `Scores` over the seeds."""
        return Spread(tuple(getattr(scores, figure) for scores in self.scores))

    @cached_property
    def guess(self) -> Spread | None:
        """Accuracy of guessing in the last round over the seeds; None if one's is not known."""
        pairs = zip(self.runs, self.scores, strict=True)
        known = tuple(g for run, own in pairs if (g := guess(run, own.last)) is not None)
        return Spread(known) if len(known) == len(self.runs) else None

    @property
    def latest(self) -> list[Report]:
        """All seeds' last reports."""
        return [report for scores in self.scores for report in scores.latest]


def scores(run: Run) -> Scores | None:
    """Return a run's scores; None where no client that replied held images out."""
    rounds: dict[int, list[Report]] = {}
    latest: dict[int, Report] = {}
    for account in run.clients:
        if report := _report(account):
            rounds.setdefault(int(account["round"]), []).append(report)
            latest[report.client] = report
    if not rounds:
        return None
    return Scores(tuple(rounds[max(rounds)]), tuple(latest[client] for client in sorted(latest)))


def served(results: Results) -> dict[tuple[Group, Group], Served]:
    """Return the scores of all finished runs that have some, by (series, condition)."""
    found = {}
    for key, cell in sorted(results.cells.items()):
        pairs = [(run, own) for run in cell.runs if (own := scores(run))]
        if pairs:
            found[key] = Served(tuple(run for run, _ in pairs), tuple(own for _, own in pairs))
    return found


def guess(run: Run, reports: Iterable[Report]) -> float | None:
    """Return the accuracy of clients that always name the most frequent class of all they hold.

    The deal is repeated for it. What a client holds is what it trains on and what it holds out;
    of equally frequent classes the first is named.

    Args:
        run: whose deal.
        reports: whose held-out images; there is at least one.

    Returns:
        Right answers over images; None where data or deal are not the run's here.
    """
    if circumstances.deals([run])[1]:
        return None
    knobs = Experiment.from_flat(run.knobs)
    labels = load(knobs.data.name).train.labels.numpy()
    right = images = 0
    for report in reports:
        mine = share({"partition-id": report.client}, knobs)
        if (len(mine.train), len(mine.held_out)) != (report.trained, report.images):
            return None
        trained, kept = labels[mine.train.numpy()], labels[mine.held_out.numpy()]
        right += int((kept == np.bincount(np.append(trained, kept)).argmax()).sum())
        images += report.images
    return right / images


def _report(account: Mapping) -> Report | None:
    """Read a line of the journal; None where the client holds no image out."""
    if not account.get("held_out"):
        return None
    names = ("partition", "held", "held_out", "global_correct", "personal_correct")
    return Report(*(int(account[name]) for name in names))


def _share(reports: Iterable[Report], right: Iterable[int]) -> float:
    return sum(right) / sum(report.images for report in reports)
