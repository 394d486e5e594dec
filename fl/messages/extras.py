"""What a reply brings besides its network and its figures: signals, sums of a metric.

Neither is in every reply, so this file is not on the path of the simplest round.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev

from flwr.app import RecordDict
from torch import Tensor

from fl.messages import records
from fl.tasks import Metric

OVER_CLIENTS = ("mean", "worst_tenth", "spread")
_MOST_SUMS = 1_000_000
"""Numbers that a client may send of its primary metric."""


def odd_scores(content: RecordDict) -> str | None:
    """Say what is wrong with the form of a metric's sums; None where they can be read."""
    record: dict = dict(content[records.SCORES])
    if record.keys() != (expected := {records.SHAPE, *records.SCORED}):
        return f"scores {sorted(record.keys() ^ expected)[:3]} are missing or unknown"
    shape = record[records.SHAPE]
    sound = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not (sound and math.prod(shape) <= _MOST_SUMS):
        return f"scores: {records.SHAPE}={shape!r}, expected at most {_MOST_SUMS:,} numbers"
    for key in records.SCORED:
        values = record[key]
        if not isinstance(values, list) or len(values) != math.prod(shape):
            found = f"{len(values)} values" if isinstance(values, list) else repr(values)
            return f"scores: {key} is {found}, expected {math.prod(shape)} numbers"
    return None


def odd_sums(content: RecordDict, metric: Metric, answers: int) -> str | None:
    """Say what a metric's sums can't be; None where they can.

    Args:
        content: of a reply; its sums can be read.
        metric: what is summed up.
        answers: of how many answers of a network.
    """
    for name, sums in zip(records.SCORED, records.scores(content), strict=True):
        if sums.numel() and (odd := metric.odd(sums, answers)):
            return f"scores: {name} has {odd}"
    return None


def odd_signals(content: RecordDict, layers: int) -> str | None:
    """Say what is wrong with signals; None where nothing is.

    Args:
        content: of a reply.
        layers: of how many layers it should bring signals.
    """
    record: dict = dict(content[records.SIGNALS])
    if record.keys() != (expected := {records.IMAGES, *records.LAYER}):
        return f"signals {sorted(record.keys() ^ expected)[:3]} are missing or unknown"
    images, held = record[records.IMAGES], records.figures(content)["held"]
    if not isinstance(images, int) or not 1 <= images <= held:
        return f"signals: {records.IMAGES}={images!r}, expected a whole number from 1 to {held}"
    for key in records.LAYER:
        values = record[key]
        if not isinstance(values, list) or len(values) != layers:
            found = f"{len(values)} values" if isinstance(values, list) else repr(values)
            return f"signals: {key} is {found}, expected {layers} numbers"
        most = 1 if key == "dead" else math.inf
        if odd := [v for v in values if v < 0 or v > most]:  # NaN stands for what there is not
            return f"signals: {key}={odd[0]:g}, expected a number from 0 to {most:g}"
    return None


def over_clients(values: Sequence[float | None], metric: Metric) -> dict[str, float | None]:
    """Return the mean of K clients' values of a metric, a client's among the worst, the spread.

    ``mean`` weighs all clients alike; ``worst_tenth`` is the value that ⌈K/10⌉ clients do not
    exceed in goodness; ``spread`` is the standard deviation ``√(Σ (a_k - mean)²/K)``. A client
    without a value counts in none. All are None where nobody has one.
    """
    known = sorted((v for v in values if v is not None), reverse=not metric.larger)
    if not known:
        return dict.fromkeys(OVER_CLIENTS)
    worst = known[math.ceil(len(known) / 10) - 1]
    return dict(zip(OVER_CLIENTS, (fmean(known), worst, pstdev(known)), strict=True))


def pooled(metric: Metric, scores: Sequence[Tensor]) -> float | None:
    """Return the metric of some clients' sums; None where it is not defined.

    Sums of another shape than most are left out: whoever sends such can't be ours.
    """
    held = [sums for sums in scores if sums.numel()]
    if not held:
        return None
    shape, _ = Counter(sums.shape for sums in held).most_common(1)[0]
    try:
        value = metric.pooled([sums for sums in held if sums.shape == shape])
    except Exception:  # whatever sums that nobody has checked lead a metric to
        return None
    return float(value) if math.isfinite(value) else None
