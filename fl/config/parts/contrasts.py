"""What a study compares with what, and how much it matters: declared before its runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from fl.config.parsing import ConfigError, Value

Knobs = Mapping[str, Value]
Flat = Mapping[str, object]
MARGIN = 1.5
"""Percentage points, where nobody said another."""
AFTER = "runs_done_before"
"""In `study.json`: how many runs were done when the contrasts became what they are."""
COMPARED = "comparisons"
"""In `study.json`: how many comparisons were declared, those of runs to come, too."""
FEWEST = 5
"""Seeds without which nothing is judged."""
ENDPOINTS = ("late-mean", "last-round", "validated", "clients")


@dataclass(frozen=True)
class Contrasts:
    """What a study compares, which its author says before it runs.

    Knobs tell cells apart: `{"recipe": "zc-swish"}` are all runs of that recipe, and
    `{"recipe": "zc-swish", "partition.kind": "iid"}` those of them with even clients.
    """

    reference: Knobs = field(default_factory=dict)
    """The contender that others are compared with; empty: BatchNorm, or the first one."""
    family: tuple[Knobs, ...] = ()
    """Those whose comparisons are confirmatory: their error is 5 % together, by Holm. All others
    are exploratory. Empty: all are confirmatory."""
    margin: int | float | None = None
    """The smallest difference that matters, in percentage points, or in units of the metric. None:
    1.5 points; of a metric that is no fraction nobody says what matters."""
    endpoint: str = ENDPOINTS[0]
    """The figure of a run. Of the test images: `late-mean`, the mean over the last tenth of rounds
    (three at least); `last-round`; `validated`, the round that is best on validation images. Of the
    clients' held-out images: `clients`, the mean over clients of what each gets with the last
    network and what stays with it, see `evaluation.clients`."""
    looks: tuple[int, ...] = ()
    """After how many seeds the family is judged, the last of them after all. Each of L looks has an
    error of 5 % / L. A comparison that is decided at a look gets no further run. Empty: there is
    one look, at the end."""

    def check(self, flats: Sequence[Flat]) -> None:
        """Check that they fit a study.

        Args:
            flats: the knobs that bear on each of its experiments.

        Raises:
            ConfigError: they don't.
        """
        for knobs in (self.reference, *self.family):
            if not any(chosen(flat, knobs) for flat in flats):
                raise ConfigError(f"contrasts: no experiment of the study has {spelled(knobs)}")
        for knobs in self.family:
            if self.reference and not any(
                chosen(flat, knobs) and not chosen(flat, self.reference) for flat in flats
            ):
                raise ConfigError(f"contrasts: {spelled(knobs)} is the reference itself")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise ConfigError(f"contrasts: margin={self.margin}, expected a number above 0")
        if self.endpoint not in ENDPOINTS:
            known = ", ".join(ENDPOINTS)
            raise ConfigError(f"contrasts: endpoint={self.endpoint!r}; known: {known}")
        if self.endpoint == "validated" and not all(flat["data.validation"] for flat in flats):
            raise ConfigError(
                "contrasts: endpoint='validated' needs validation images; set data.validation"
            )
        if self.endpoint == "clients" and not all(_scored(flat) for flat in flats):
            raise ConfigError(
                "contrasts: endpoint='clients' needs clients that score the last network; set "
                "partition.held-out and evaluation.clients"
            )

    def check_looks(self, blocks: int) -> None:
        """Check that looks rise from five seeds to those that a study has.

        Args:
            blocks: how many it has.

        Raises:
            ConfigError: they don't.
        """
        if not (looks := list(self.looks)):
            return
        if looks != sorted(set(looks)) or looks[0] < FEWEST or looks[-1] != blocks:
            raise ConfigError(
                f"contrasts: looks={looks}, expected numbers that rise from {FEWEST} or more to "
                f"{blocks}, the number of the study's seeds"
            )

    def declared(
        self,
        before: Mapping[str, object],
        done: int,
        comparisons: int,
        looked_at: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Return what a study's file says of them, and how many runs they came after.

        Args:
            before: what it said until now; empty: nothing.
            done: runs of the study that are done.
            comparisons: how many there are. A study that is cut down keeps those that it had, since
                its runs are looked at in the light of all that were asked for.
            looked_at: what looks are about, which with looks is declared, too: another such study
                is another race, with an error of its own.
        """
        here: dict[str, object] = {**asdict(self), "family": list(self.family)}
        del here["looks"]
        if self.looks:
            here |= {"looks": list(self.looks), **(looked_at or {})}
        counted = {AFTER: 0, COMPARED: 0}
        if {**before, **counted} != {**here, **counted}:
            return {**here, AFTER: done, COMPARED: comparisons}
        return {**before, COMPARED: max(comparisons, int(before.get(COMPARED, 0)))}  # pyrefly: ignore


def _scored(flat: Flat) -> bool:
    """Say whether an experiment's clients score the last network on held-out images."""
    return bool(flat["partition.held-out"] and flat["evaluation.clients"])


def chosen(flat: Flat, knobs: Knobs) -> bool:
    """Say whether an experiment, or a run, has some knobs at some values."""
    return all(flat.get(key) == value for key, value in knobs.items())


def spelled(knobs: Knobs) -> str:
    """Spell knobs in one line, as errors do."""
    return ", ".join(f"{key}={value}" for key, value in knobs.items()) or "no knob"
