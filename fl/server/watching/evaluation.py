"""What the server's images are, on which it scores the network of a round."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fl.config import Experiment
from fl.config.parts import Vectorized
from fl.data import Dataset, Split, validation
from fl.nn import resolve_auto
from fl.reproducibility.seeds import stream
from fl.tasks import objective

FULL = ("test", "validation")
"""The splits of a full evaluation."""
SAMPLE = ("sample",)
"""That of a round between two of them."""


def splits(knobs: Experiment, dataset: Dataset) -> Mapping[str, Split]:
    """Return the images that networks are scored on, by the names in `FULL` and `SAMPLE`.

    A process has them once, however clients are trained, and shares them with its forks. Some may
    be empty.

    Args:
        knobs: the experiment.
        dataset: its data.
    """
    plain = resolve_auto(knobs).model_copy(update={"engine": "auto", "vectorized": Vectorized()})
    return _splits(plain, dataset)


@lru_cache(maxsize=1)
def _splits(knobs: Experiment, dataset: Dataset) -> Mapping[str, Split]:
    return {
        "test": dataset.test,
        "validation": dataset.train.only(validation(knobs)),
        "sample": dataset.test.only(sampled(knobs, dataset.test.labels)),
    }


def sampled(knobs: Experiment, labels: Tensor) -> Int[Tensor, " chosen"]:
    """Return the places of `evaluation.images` examples, by the stream (seed, "evaluation").

    They lie evenly spread in all examples, shuffled and then sorted by the classes that a deal goes
    by. So of n_c examples of class c among n, m · n_c / n are taken, rounded up or down.
    """
    most = min(knobs.evaluation.images, len(labels))
    if not most:
        return torch.empty(0, dtype=torch.int64)
    order = stream(knobs.seed, "evaluation").permutation(len(labels))
    classes = objective(knobs).task.classes_for_deal(labels)
    order = order[np.argsort(classes[order], kind="stable")]
    middles = (2 * np.arange(most) + 1) * len(labels) // (2 * most)
    return torch.from_numpy(np.sort(order[middles]))
