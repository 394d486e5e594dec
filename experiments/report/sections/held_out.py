"""What clients reported of their held-out images: the shared network's answers and their own's."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.report import tables, words
from experiments.report.labels import Group
from experiments.report.markup import Html, element, prose, table
from experiments.report.measure import ACCURACY, Measure, Spread
from experiments.report.results import Results, Run
from experiments.report.sections import circumstances
from fl.data import load, share

_GROUPS = {"trained": "clients that trained", "unseen": "clients that never did"}
_FIGURES = {"mean": "mean", "worst_tenth": "worst tenth", "spread": "spread"}
_TEXT = (
    "After the last round all clients scored the network on their held-out images, each with the "
    "parameters that stay with it, if any do. All clients weigh alike. A tenth of them (rounded "
    "up) get no further than the *worst tenth*; the *spread* is the standard deviation over "
    "clients. Clients that never took part have what the run began with in the place of what "
    "stays. Figures are means over seeds, with the lowest and the highest seed below."
)


@dataclass(frozen=True)
class Report:
    """One client's figures of one round; images are its held-out ones."""

    client: int
    trained: int
    """Images that it trains on."""
    images: int
    shared_right: float
    """Right answers of the shared network, as the client received it; of a metric that counts
    none, its value times the images."""
    own_right: float
    """The same of this network after the client trained it."""

    @property
    def own(self) -> float:
        """The own network's accuracy, or other metric."""
        return self.own_right / self.images

    @property
    def gain(self) -> float:
        """By how much the own network's metric exceeds the shared network's."""
        return (self.own_right - self.shared_right) / self.images


@dataclass(frozen=True)
class Scores:
    """One run's reports: those of a round, where images count, and where every client counts."""

    last: tuple[Report, ...]
    """Of the last round in which a client with held-out images replied."""
    latest: tuple[Report, ...]
    """Each client's last one, by client; who never replied has none."""
    measure: Measure = ACCURACY
    """The primary metric."""
    pooled: tuple[float, float] | None = None
    """The metric of the shared and of the own networks on all images of the last round, where it
    does not count right answers."""

    @property
    def shared(self) -> float:
        """The shared network's metric on all images of the last round."""
        if self.pooled:
            return self.pooled[0]
        return _share(self.last, [report.shared_right for report in self.last])

    @property
    def own(self) -> float:
        """The metric of the clients' own networks, each on its client's, on the same images."""
        if self.pooled:
            return self.pooled[1]
        return _share(self.last, [report.own_right for report in self.last])

    @property
    def gain(self) -> float:
        """By how much own networks exceed the shared one in the last round."""
        return self.own - self.shared

    @property
    def lowest_tenth(self) -> float:
        """The own value that a tenth of the clients, rounded up, do not exceed: one client's."""
        worst_first = sorted((r.own for r in self.latest), key=self.measure.goodness)
        return worst_first[math.ceil(len(self.latest) / 10) - 1]

    @property
    def median(self) -> float:
        """The median over clients of their own values."""
        return statistics.median(report.own for report in self.latest)

    @property
    def losers(self) -> int:
        """Clients whose own network is worse than the shared one that it came from."""
        return sum(self.measure.goodness(report.gain) < 0 for report in self.latest)


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
        if report := _report(account, run.measure):
            rounds.setdefault(int(account["round"]), []).append(report)
            latest[report.client] = report
    if not rounds:
        return None
    last, measure, pooled = max(rounds), run.measure, None
    if not measure.is_accuracy:
        line = next(line for line in run.rounds if line["round"] == last)
        keys = (f"{whose}_{measure.name}_held_out" for whose in ("global", "personal"))
        pooled = tuple(line[key] for key in keys)
    by_client = tuple(latest[client] for client in sorted(latest))
    return Scores(tuple(rounds[last]), by_client, measure, pooled)


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
        Right answers over images; None where data or deal are not the run's here, or another
        metric is the primary one.
    """
    if not run.measure.is_accuracy or circumstances.deals([run])[1]:
        return None
    knobs = circumstances.experiment(run)
    labels = load(knobs).train.labels.numpy()
    right = images = 0
    for report in reports:
        mine = share({"partition-id": report.client}, knobs)
        if (len(mine.train), len(mine.held_out)) != (report.trained, report.images):
            return None
        trained, kept = labels[mine.train.numpy()], labels[mine.held_out.numpy()]
        right += int((kept == np.bincount(np.append(trained, kept)).argmax()).sum())
        images += report.images
    return right / images


def _report(account: Mapping, measure: Measure) -> Report | None:
    """Read a line of the journal; None where the client holds no image out, or has no value."""
    if not account.get("held_out"):
        return None
    client, trained, images = (int(account[name]) for name in ("partition", "held", "held_out"))
    if measure.is_accuracy:
        right = (int(account[f"{whose}_correct"]) for whose in ("global", "personal"))
        return Report(client, trained, images, *right)
    values = [account[f"{whose}_{measure.name}"] for whose in ("global", "personal")]
    if None in values:
        return None
    return Report(client, trained, images, *(value * images for value in values))


def _share(reports: Iterable[Report], right: Iterable[float]) -> float:
    return sum(right) / sum(report.images for report in reports)


def every_client(results: Results) -> Html | None:
    """Make the section on how the last network serves all clients; None where no run asked them."""
    surveyed = [run for run in results.finished if "trained_clients" in (run.result or {})]
    if not surveyed:
        return None
    columns = [(group, name) for group in _GROUPS for name in ("clients", *_FIGURES)]
    top = [element("th", words.series_noun(results), rowspan="2", scope="col")]
    top += [
        element("th", title, colspan=str(1 + len(_FIGURES)), scope="colgroup", class_="group")
        for title in _GROUPS.values()
    ]
    second = [_head(_FIGURES.get(name, name)) for _, name in columns]
    served = _rows(results, len(columns), lambda runs: [_cell(runs, *c) for c in columns])
    domains = sorted({domain for run in surveyed for domain in _domains(run)})
    by_domain = None
    if domains:
        head = [element("th", words.series_noun(results), scope="col"), *map(_head, domains)]
        cells = _rows(results, len(domains), lambda runs: [_of_domain(runs, d) for d in domains])
        text = "Means over the clients of a domain that trained and hold examples of no other:"
        by_domain = [element("p", text), table([head], cells, "every-client-by-domain")]
    return element(
        "section",
        element("h2", "How the last network serves every client"),
        element("p", prose(_TEXT)),
        table([top, second], served, "every-client"),
        by_domain,
    )


def _rows(
    results: Results, columns: int, cells: Callable[[list[Run]], list[Html]]
) -> list[list[list[Html]]]:
    """Return the bodies of a table: a part a condition, a row a contender that was surveyed."""
    bodies = []
    for condition in results.conditions:
        rows = []
        for series in results.series:
            cell = results.cells.get((series, condition))
            runs = [r for r in cell.runs if "trained_clients" in (r.result or {})] if cell else []
            if runs:
                rows.append([tables.contender(series, results), *cells(runs)])
        if rows:
            bodies.append(tables.part(str(condition), columns + 1, rows))
    return bodies


def _head(title: str) -> Html:
    return element("th", title, scope="col", class_="number")


def _domains(run: Run) -> dict[str, dict]:
    return (run.result or {}).get(f"domains_{run.measure.name}", {})


def _cell(runs: Sequence[Run], group: str, name: str) -> Html:
    measure = runs[0].measure
    if name == "clients":
        counts = sorted({int(run.result[f"{group}_clients"]) for run in runs})  # pyrefly: ignore
        text = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
        return element("td", text, class_="number")
    key = f"{group}_{measure.name}_{name}"
    return _value((run.result[key] for run in runs), measure)  # pyrefly: ignore


def _of_domain(runs: Sequence[Run], domain: str) -> Html:
    return _value((_domains(run).get(domain, {}).get("mean") for run in runs), runs[0].measure)


def _value(values: Iterable[float | None], measure: Measure) -> Html:
    known = tuple(value for value in values if value is not None)
    if not known:
        return element("td", "–", class_="number muted")
    small = element("small", measure.extent(known)) if len(known) > 1 else None
    return element("td", element("span", measure.value(Spread(known).mean)), small, class_="number")
