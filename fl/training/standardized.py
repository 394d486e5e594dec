"""A trained network with what using it takes: it standardizes examples by itself."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fl.config import Experiment
from fl.data import Dataset

_TOLD = ("seed", "recipe", "data.name", "state.bn")


def describe(knobs: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return what using the network of a run takes.

    It has the shape of an example, the names of the classes, mean and standard deviation of each
    channel and the type of values; and of the knobs the seed, the recipe, the data's name, and
    those of network and task. Mean and deviation are None where each device has its own.
    """
    empty = not len(dataset.train)
    flat = knobs.to_flat()
    return {
        "shape": dataset.shape,
        "classes": dataset.classes,
        "mean": None if empty else dataset.mean.tolist(),
        "std": None if empty else dataset.std.tolist(),
        "values": str(dataset.train.images.dtype).removeprefix("torch."),
        "knobs": {
            k: v for k, v in flat.items() if k in _TOLD or k.startswith(("network.", "task."))
        },
    }


class Standardized(nn.Module):
    """A network that takes examples as they are in the data: pixels from 0 to 255, or signals.

    Channel by channel it computes (x - mean) / std, as training did, and calls the network.

    Args:
        network: takes standardized examples (batch, channels, *space).
        knobs: of the run that it is from.
        shape: (channels, *space) of an example.
        classes: their names, in the order of the network's outputs.
        moments: mean and standard deviation of each channel, in the units of the data.
        values: the type of the data's values, `uint8` or `float32`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        knobs: Experiment,
        shape: Sequence[int],
        classes: Sequence[str],
        moments: tuple[Sequence[float], Sequence[float]],
        values: str,
    ) -> None:
        super().__init__()
        self.network, self.knobs, self.values = network, knobs, values
        self.shape, self.classes = tuple(shape), tuple(classes)
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in moments)
        broad = (-1, *(1,) * (len(self.shape) - 1))
        self.register_buffer("scale", (1 / std).float().view(broad))
        self.register_buffer("shift", (mean / std).float().view(broad))

    def forward(
        self, examples: Shaped[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch outputs ..."]:
        """Return the network's outputs; of a classification the logits of the classes.

        Args:
            examples: bytes, or numbers in the same units.
        """
        if tuple(examples.shape[1:]) != self.shape:
            raise ValueError(
                f"examples have the shape {tuple(examples.shape[1:])}, and the network is for "
                f"{self.shape}: give a batch (batch, channels, *space)"
            )
        return self.network(examples.float() * self.scale - self.shift)
