"""The picture of a profile: what each worker was at over time, in lanes."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.report.drawing.figures import INK, MUTED, RC
from fl.client.spans import Span
from fl.simulation.workers.profile import SERVER, Profile, called

_MOST_ROUNDS = 3
"""That are drawn; in more, clients would be too small to see."""
_COLORS = {"train": "#d5e2ef", "client": "#3b6ea5", "query": "#cc79a7", "evaluate": "#e69f00"}
_WORDS = {
    "train": "no client in this lane",
    "client": "a client trains",
    "query": "a query is answered",
    "evaluate": "a network is evaluated",
}


def in_lanes(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Deal spans to as few lanes as hold them without overlap, each to the first that is free."""
    ends: list[float] = []
    found = []
    for span in sorted(spans, key=lambda span: span.begun):
        lane = next((n for n, end in enumerate(ends) if end <= span.begun), len(ends))
        ends[lane : lane + 1] = [span.ended]
        found.append((lane, span))
    return found


def timeline(profile: Profile) -> Figure:
    """Draw up to three rounds, the first left out where there are others: its caches were empty.

    A band is a worker, and a row in it a lane. White is a worker that waits. Which lane a client
    had is not noted: it is drawn in the first that is free.
    """
    rounds = list(profile.begins.items())
    shown = rounds[1 : 1 + _MOST_ROUNDS] if len(rounds) > 1 else rounds
    begun, ended = shown[0][1], profile.end(shown[-1][0])
    helped = [SERVER] if profile.spans.get(SERVER) else []
    workers = [*reversed(range(profile.workers)), *helped]
    drawn = {worker: _between(profile.spans[worker], begun, ended) for worker in workers}
    with mpl.rc_context(RC):
        figure = Figure(figsize=(9.6, 1.1 + 0.9 * len(workers)), layout="constrained")
        panel = figure.subplots()
        for height, worker in enumerate(workers):
            _band(panel, height, drawn[worker])
        for number, at in shown:
            panel.axvline(at - begun, color=INK, lw=0.8)
            panel.annotate(
                f"round {number}",
                (at - begun, len(workers) - 0.5),
                (3, 2),
                textcoords="offset points",
                size=7.5,
                color=MUTED,
            )
        panel.set(xlim=(0, ended - begun), ylim=(-0.5, len(workers) - 0.5), xlabel="seconds")
        panel.set_yticks(range(len(workers)), [called(worker) for worker in workers])
        panel.tick_params(axis="y", length=0)
        panel.grid(visible=False)
        seen = [span.what for spans in drawn.values() for span in spans]
        named = [what for what in _COLORS if any(one.startswith(what) for one in seen)]
        handles = [Patch(color=_COLORS[what], label=_WORDS[what]) for what in named]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _between(spans: Sequence[Span], begun: float, ended: float) -> list[Span]:
    """Return the spans that reach into a time, in seconds from its beginning."""
    within = [span for span in spans if span.begun < ended and span.ended > begun]
    return [s._replace(begun=s.begun - begun, ended=s.ended - begun) for s in within]


def _band(panel: Axes, height: int, spans: Sequence[Span]) -> None:
    """Draw a worker: what it was at, and over that its clients in lanes."""
    for what in ("train", "query", "evaluate"):
        for span in spans:
            if span.what.startswith(what):
                _bar(panel, span, height - 0.43, 0.86, _COLORS[what])
    clients = in_lanes([span for span in spans if span.what == "client"])
    lanes = 1 + max((lane for lane, _ in clients), default=0)
    size = 0.86 / lanes
    for lane, span in clients:
        _bar(panel, span, height + 0.43 - (lane + 1) * size, size, _COLORS["client"])


def _bar(panel: Axes, span: Span, bottom: float, height: float, color: str) -> None:
    panel.broken_barh(
        [(span.begun, span.ended - span.begun)],
        (bottom, height),
        facecolor=color,
        edgecolor="white",
        lw=0.5,
    )
