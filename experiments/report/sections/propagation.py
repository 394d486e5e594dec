"""The figure, the table and the sheet of `fednf probe`: signals by depth, a line a network."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from experiments.probe import Probe
from experiments.report import csv_files, words
from experiments.report.drawing import panels, profiles
from experiments.report.drawing.figures import MUTED, style
from experiments.report.labels import Group, group
from fl.nn import resolve_auto
from fl.nn.criticality import Chain

Row = Mapping[str, str | float | None]
Cells = Mapping[tuple[Group, Group], Sequence[Probe]]


def cells(probes: Sequence[Probe]) -> Cells:
    """Sort networks by contender and condition; those of a cell differ in their seeds alone."""
    found: dict[tuple[Group, Group], list[Probe]] = {}
    for probe, key in zip(probes, group([p.knobs.to_flat() for p in probes]), strict=True):
        found.setdefault(key, []).append(probe)
    return dict(sorted(found.items()))


def figure(probes: Sequence[Probe]) -> Figure:
    """Draw what becomes of signals and gradients: a line is a mean over seeds, a band all of them.

    A row of panels a condition. Forward, these are the signal propagation plots of arXiv
    2101.08692, section 3; gradients and dead channels are beside them.
    """
    found = cells(probes)
    conditions = sorted({condition for _, condition in found})
    series = sorted({one for one, _ in found})
    places = [(condition, key) for condition in conditions for key in profiles.WORDS]
    titles = [profiles.WORDS[key] for _, key in places]
    most = len(profiles.WORDS)
    with panels.grid(titles, 2.5, top=0.8, most=most, sharex=False, sharey="col") as drawn:
        for panel, (condition, key) in zip(drawn.all, places, strict=True):
            for one in series:
                if networks := [probe.layers for probe in found.get((one, condition), ())]:
                    profiles.draw(panel, key, networks, networks, style(one, series))
            profiles.finish(panel, key)
        if len(conditions) > 1:
            for panel, condition in zip(drawn.leftmost, conditions, strict=True):
                panel.set_ylabel(str(condition), fontweight="bold")
        drawn.legend(series, series)
        drawn.figure.supxlabel(_about(found), x=0.01, ha="left", size=7.5, color=MUTED)
    return drawn.figure


def as_csv(probes: Sequence[Probe]) -> str:
    """Return every number as CSV: a row a network and layer, in order of execution."""
    return csv_files.as_csv(
        {
            **_whose(series, condition, probe),
            "recipe": probe.knobs.recipe,
            "seed": probe.knobs.seed,
            "run": probe.run,
            "round": probe.round,
            "place": place,
            **layer,
        }
        for (series, condition), networks in cells(probes).items()
        for probe in networks
        for place, layer in enumerate(probe.layers, start=1)
    )


def summary(probes: Sequence[Probe]) -> list[Row]:
    """Return a row a contender and condition: figures of the means over its seeds.

    ``gradient_last_to_first`` is the gradient's ACV at the last station over that at the first:
    above 1, gradients shrink on their way back. ``forward`` and ``backward`` are 2·E[f²] and
    χ = 2·E[f'²] of its activations by quadrature, ``depth_forward`` and ``depth_backward`` the
    products over all layers of s·E[f²] and s·E[f'²], for weights of mean square s/fan_in.
    """
    rows: list[Row] = []
    for (series, condition), networks in cells(probes).items():
        layers = [probe.layers for probe in networks]
        forward, back = (profiles.means(layers, key) for key in ("acv", "gradient_acv"))
        finite = [value for value in forward if math.isfinite(value)]
        dead = [share for share in profiles.means(layers, "dead") if math.isfinite(share)]
        row = {
            **_whose(series, condition, networks[0]),
            "networks": len(networks),
            "acv_first": _known(forward[0]),
            "acv_last": _known(forward[-1]),
            "acv_min": min(finite, default=None),
            "acv_max": max(finite, default=None),
            "gradient_last_to_first": _known(back[-1] / back[0]) if back[0] else None,
            "dead": fmean(dead) if dead else None,
            **_factors([probe.chain for probe in networks]),
        }
        rows.append(row)
    return rows


def _factors(chains: Sequence[Chain]) -> dict[str, float | None]:
    """Return means over networks of what layers make of signals and gradients; None if unknown."""
    found: dict[str, list[float | None]] = {
        "forward": [chain.forward for chain in chains],
        "backward": [chain.backward for chain in chains],
        "depth_forward": [chain.depth and chain.depth[0] for chain in chains],
        "depth_backward": [chain.depth and chain.depth[1] for chain in chains],
    }
    known = {name: [v for v in values if v is not None] for name, values in found.items()}
    return {name: fmean(values) if values else None for name, values in known.items()}


def _whose(series: Group, condition: Group, probe: Probe) -> dict[str, str]:
    """Name a network's contender and, of a run, the condition: nothing bears on a beginning."""
    return {"series": str(series), "condition": str(condition) if probe.run else ""}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _about(found: Cells) -> str:
    """Say in a line what was measured: what all networks have in common, and how many there are."""
    probes = [probe for networks in found.values() for probe in networks]
    sizes = [resolve_auto(probe.knobs).network for probe in probes]
    told = [
        {size.kind for size in sizes},
        {f"depth {size.depth}" for size in sizes},
        {f"width {size.width}" for size in sizes},
        {f"init {size.init}" for size in sizes},
        {f"after round {p.round}" if p.run else "before training" for p in probes},
        {words.count(p.images, "training image") + f" of {p.knobs.data.name}" for p in probes},
    ]
    seeds = {len(networks) for networks in found.values()}
    if max(seeds) > 1:
        told.append({"mean and range of " + " or ".join(map(str, sorted(seeds))) + " seeds"})
    if any(profiles.residual(probe.layers) for probe in probes):
        told.append({"dashed: ACV at the end of residual branches"})
    if any(profiles.below_floor(probe.layers) for probe in probes):
        told.append({"what is smaller than the axis is drawn on its floor"})
    chis = {str(one): _factors([p.chain for p in found[one, two]]) for one, two in found}
    factors = [f"{one} {row['backward']:.2f}" for one, row in chis.items() if row["backward"]]
    line = "; ".join(next(iter(texts)) for texts in told if len(texts) == 1)
    return f"{line}\nχ = 2E[f'²], a layer's factor on gradients with He's weights: " + (
        ", ".join(factors) or "unknown"
    )
