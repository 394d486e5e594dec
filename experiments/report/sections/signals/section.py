"""The report's section on signals."""

from collections.abc import Mapping, Sequence

from experiments.report import words
from experiments.report.markup import Html, element, prose
from experiments.report.results import Results
from experiments.report.sections.signals import apart, by_depth
from experiments.report.sections.signals.measured import Signals

_HOW = (
    "*ACSM* (average channel squared mean) is the squared mean of a channel over images and space, "
    "as a mean over channels; *ACV* (average channel variance) is the variance of a channel over "
    "images and space, as a mean over channels (Brock et al. 2021, arXiv 2101.08692, section 3). "
    "Their sum is the mean square of what a layer puts out. They are drawn by depth, from the "
    "first layer to the last: at the output of every activation or, in a network with residual "
    "branches, wherever one is merged, with the ACV of the branch as a dashed line. The "
    "gradient is that of the mean loss with regard to the same outputs.",
    "A level line is a signal that keeps its size. Where ACV falls towards 0, all images look the "
    "same to the layers behind; where ACSM is far above ACV, a channel says the same of all of "
    "them; and where the gradient falls from right to left, the first layers hear little of the "
    "loss. None of this says how accurate a network is.",
    "A line is the shared network, after averaging. A band reaches from the lowest to the highest "
    "of the round's clients, before averaging. All are measured in one batch of training images, "
    "the same in every round, so where a line leaves its band, averaging (and what else the "
    "strategy does) changed the signal. There is no band where the server has only a part of each "
    "client's network, or an earlier version measured.",
)
_ALSO = (
    "Networks are measured in training mode: what trains by the batch normalizes by the one that "
    "is measured. Figures that are not finite are left out; what is below the axis is drawn on "
    "its floor. The numbers are in signals.csv, also of each client in a batch of its own images, "
    "and in divergence.csv; signals.jsonl in a run's folder has those of all other layers, rounds "
    "and seeds. The loss is a mean over the batch, so half the images make a gradient's ACV four "
    "times as large."
)
_APART = (
    "How far the clients of a round are apart. *Cancelled by averaging*: the sum of squared "
    "distances of clients' networks from their mean, weighted by examples, as a share of that of "
    "their distances from the network that they began with; 0 is one update for all, 1 is updates "
    "that take back each other, and K clients whose updates have nothing in common have about "
    "1 - 1/K. *Cosine between updates*: as a mean over pairs; 1 is one direction for all, 0 is "
    "none in common. *Spread of activation scalars*: the variance of each learnable scalar across "
    "clients, before averaging, as a mean over all scalars, and of that the square root, in the "
    "units that scalars are stored in (some as logarithms). *Gap of running means*: (client's - "
    "shared)² / shared variance of BatchNorm's running statistics, as a mean over channels, layers "
    "and clients. Earlier versions measured neither the first nor the last of these four."
)


def section(
    found: Sequence[Signals], results: Results, pictures: Mapping[str, Html | None]
) -> Html:
    """Make the section on signals.

    Args:
        found: of `read`; not empty.
        results: all runs.
        pictures: by the keys of both `CAPTIONS`; None where there is none.
    """
    depth = [_drawn(pictures[key], about) for key, about in by_depth.CAPTIONS.items()]
    between = [_drawn(pictures[key], x) for key, x in apart.CAPTIONS.items() if pictures[key]]
    return element(
        "section",
        element("h2", "Signals"),
        [element("p", prose(text)) for text in (*_HOW, _which(found, results) + _ALSO)],
        depth,
        [element("h3", "How far clients are apart"), element("p", prose(_APART)), *between]
        if between
        else None,
    )


def _which(found: Sequence[Signals], results: Results) -> str:
    """Say which seeds are drawn."""
    seeds = ", ".join(map(str, sorted({one.run.seed for one in found})))
    noun = words.series_noun(results)
    return f"Drawn is one seed a {noun} and condition, the lowest that was measured ({seeds}). "


def _drawn(picture: Html | None, about: str) -> Html:
    caption = element("figcaption", about)
    return element("figure", element("div", picture, class_="wide"), caption)
