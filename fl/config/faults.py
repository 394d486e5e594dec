"""What goes wrong on purpose: which clients are faulty, in which rounds, and how."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fl.config.parsing import Knobs, Value
from fl.config.parts import NonNegative, Rate

Spans = tuple[tuple[int, int | float], ...]
"""Ranges of whole numbers, both ends included; an open end is ∞."""

_FACTORS = {"sign": 1.0, "huge": 100.0, "statistics": 10.0}
"""What `factor=auto` stands for; other faults have none."""


class Faults(Knobs):
    """Faults by schedule, to see what a run makes of them; see docs/guide/runs.md."""

    kind: Literal[
        "none",
        "exception",
        "hang",
        "late",
        "lost",
        "duplicate",
        "killed",
        "nan",
        "inf",
        "shape",
        "missing",
        "huge",
        "sign",
        "statistics",
        "labels",
    ] = "none"
    """What a faulty client does. `exception`: it raises one. `hang`: it never ends. `late`: its
    reply comes `faults.seconds` later. `lost`: its reply never comes. `duplicate`: its reply comes
    twice. `killed`: its worker process dies. Of the network that it sends, `nan` and `inf` replace
    a number, `shape` adds an axis to a tensor and `missing` leaves one out. `huge` multiplies its
    update by `faults.factor` f, `sign` by -f. `statistics` is honest about weights, and moves each
    BatchNorm mean by f standard deviations and multiplies each variance by f. `labels`: it trains
    on class C - 1 - y for y, of C classes."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of all clients that are faulty, rounded to a whole number of them. Who is faulty at a
    share is faulty at every larger one."""
    who: Literal["same", "anew"] = "same"
    """Whether the same clients are faulty in every round, or each round draws others."""
    clients: str = ""
    """The faulty clients, in place of a share, such as `0,3,7-9`."""
    rounds: str = "all"
    """The rounds in which they are faulty: `all`, or such as `2,5-8,10-`."""
    factor: Rate | Literal["auto"] = "auto"
    """f of `huge`, `sign` and `statistics`. `auto`: 100, 1 and 10."""
    seconds: NonNegative = 1.0
    """How much later a reply of `late` comes, in seconds of the clock."""

    @field_validator("clients", "rounds")
    @classmethod
    def _spans_are_spelt_right(cls, text: str) -> str:
        try:
            spans(text)
        except ValueError:
            raise ValueError("should be numbers and ranges such as 2,5-8,10-") from None
        return text

    @model_validator(mode="after")
    def _somebody_is_faulty(self) -> "Faults":
        asked = bool(self.share or self.clients)
        if self.kind == "none" and asked:
            raise ValueError("faults.share and faults.clients need faults.kind, for example sign")
        if self.kind != "none" and not asked:
            raise ValueError(
                f"faults.kind={self.kind} needs faulty clients: set faults.share or faults.clients"
            )
        if not spans(self.rounds):
            raise ValueError("faults.rounds is empty; set it to all, or to such as 2,5-8,10-")
        if self.share and self.clients:
            raise ValueError(
                f"faults.share={self.share:g} and faults.clients={self.clients} both say who is "
                "faulty; leave one out"
            )
        return self

    def strength(self) -> float:
        """Return f, by which this kind of fault multiplies; 1 where it does not."""
        return _FACTORS.get(self.kind, 1.0) if self.factor == "auto" else self.factor

    def check(self, clients: int, task: str, deadline: float) -> None:
        """Refuse what does not fit the rest of an experiment.

        Args:
            clients: in the federation.
            task: the value of `task.kind`.
            deadline: the value of `round.deadline`.

        Raises:
            ValueError: a client does not exist, the labels can't be turned, or nothing would end a
                client that hangs.
        """
        ends = [first if last == math.inf else last for first, last in spans(self.clients)]
        if ends and max(ends) >= clients:
            raise ValueError(
                f"faults.clients={self.clients} should be of 0 to {clients - 1}, since "
                f"partition.clients={clients}"
            )
        if self.kind == "labels" and task != "classification":
            raise ValueError(f"faults.kind=labels needs task.kind=classification, found {task}")
        if self.kind == "hang" and not deadline:
            raise ValueError(
                "faults.kind=hang needs round.deadline, for example 60: else a round never ends"
            )


@lru_cache(maxsize=64)
def spans(text: str) -> Spans:
    """Return the ranges in a text such as `2,5-8,10-`; all numbers for `all`, none for no text.

    Raises:
        ValueError: it is spelt otherwise.
    """
    if text == "all":
        return ((0, math.inf),)
    found: list[tuple[int, int | float]] = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.strip().partition("-")
        end = (math.inf if not last else int(last)) if dash else int(first)
        if not first.isdecimal() or end < int(first):
            raise ValueError(part)
        found.append((int(first), end))
    return tuple(found)


def within(number: int, text: str) -> bool:
    """Return whether a number is in the ranges of a text, see `spans`."""
    return any(first <= number <= last for first, last in spans(text))


def idle_faults(knobs: Mapping[str, Value]) -> set[str]:
    """Return the flat keys of faults that others switch off."""
    kind, ours = knobs.get("faults.kind", "none"), {k for k in knobs if k.startswith("faults.")}
    if kind == "none":
        return ours - {"faults.kind"}
    off = set() if kind in _FACTORS else {"faults.factor"}
    off |= set() if kind == "late" else {"faults.seconds"}
    off |= {"faults.share", "faults.who"} if knobs.get("faults.clients") else {"faults.clients"}
    return off & ours
