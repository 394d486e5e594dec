"""Whether a user's loss says one number for each example, looked at before anything is trained."""

import torch
from torch import Tensor

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Dataset
from fl.nn.foreign.observed import as_found
from fl.tasks import objective
from fl.training.parameters import FlatNetwork

_FEW = 5
"""Examples whose losses are looked at."""


def check_loss(network: FlatNetwork, dataset: Dataset, knobs: Experiment) -> None:
    """Refuse a user's loss that returns anything but a loss for each example, such as a mean.

    It is asked once, for a few training examples. What raises an exception is left to the run,
    which tells it with its traceback.

    Args:
        network: in any mode, which it keeps; nothing of it changes.
        dataset: whose training examples are taken; where it has none, nothing is asked.
        knobs: the experiment.

    Raises:
        ConfigError: it returned something else; the line names the user's file.
    """
    asked, labels = objective(knobs), dataset.train.labels[:_FEW]
    if asked.ours or not len(labels):
        return
    inputs, device = dataset.inputs(dataset.train.images[:_FEW]), network.weights.device
    with as_found(network.module), network.alone(), torch.no_grad():
        network.module.eval()
        try:
            found = asked.loss(network.module(inputs.to(device)), labels.to(device))
        except Exception:  # a bug that the run itself will meet and tell, with the user's line
            return
    if isinstance(found, Tensor) and found.shape == labels.shape[:1]:
        return
    what = f"of the shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
    code, own = getattr(asked.loss, "__code__", None), knobs.task.loss != "auto"
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    raise ConfigError(
        f"task.{f'loss={knobs.task.loss}' if own else f'kind={knobs.task.kind}'}{place}: the loss "
        f"of {len(labels)} examples is {what:.100}, expected the shape ({len(labels)},): one for "
        "each, without a mean or a sum (reduction='none')"
    )
