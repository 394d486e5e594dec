"""What a reply brings besides its network and its figures: signals, sums of a metric.

Neither is in every reply, so this file is not on the path of the simplest round.
"""

import math

from flwr.app import RecordDict

from fl.messages import records
from fl.tasks import Metric

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
