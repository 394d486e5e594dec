"""What a trained network says of files: pictures, and arrays of examples."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl.config.parsing import ConfigError
from fl.data.formats.pixels import ENDINGS, Stack
from fl.data.formats.reading import check_archive, read_bytes, reading
from fl.reproducibility.machine import check_file
from fl.training.loop import examples_at_a_time
from fl.training.parameters import FlatNetwork
from fl.training.standardized import Standardized

ANSWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "classification": lambda outputs: outputs.softmax(1),
    "multilabel": torch.sigmoid,
}
"""Task -> probabilities of classes, (examples, classes), from a network's outputs."""
ARRAYS = (".npy", ".npz")
_EXAMPLES = ("test_images", "x_test", "images", "x")
"""Names of the examples in an archive of several arrays, in the order of asking."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of an example."""

    file: Path
    place: int | None
    """Of the example in its file; None where a file is one example."""
    classes: Sequence[tuple[str, float]]
    """The most probable classes with their probabilities, the most probable first."""

    @property
    def name(self) -> str:
        """The file and, in brackets, the example's place in it."""
        return str(self.file) if self.place is None else f"{self.file}[{self.place}]"


def predict(
    model: Standardized, files: Iterable[Path], top: int, refuse: Callable[[str], None]
) -> Iterator[Prediction]:
    """Yield what a network says of the examples in files, in their order.

    Args:
        model: of a task in `ANSWERS`.
        files: pictures, `.npy` or `.npz`.
        top: classes of a prediction, at most.
        refuse: is told, in one line, of each file that can't be used.
    """
    examples, most = _examples(model, files, refuse), at_a_time(model)
    while batch := list(islice(examples, most)):
        with torch.inference_mode():
            outputs = model(torch.stack([example for _, _, example in batch]))
        probabilities = ANSWERS[model.knobs.task.kind](outputs.double())
        values, places = probabilities.topk(min(top, probabilities.shape[1]))
        for (file, place, _), row, chosen in zip(batch, values, places, strict=True):
            named = [model.classes[number] for number in chosen.tolist()]
            yield Prediction(file, place, list(zip(named, row.tolist(), strict=True)))


def at_a_time(model: Standardized) -> int:
    """Return how many examples the network takes at a time, as many as in a run's evaluation."""
    return examples_at_a_time(FlatNetwork(model.network, torch.device("cpu")), model.shape)


def listed(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and the files in folders and below them in the order of their paths.

    Hidden files in folders are passed over.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(names) if name[0] != ".")


def _examples(
    model: Standardized, files: Iterable[Path], refuse: Callable[[str], None]
) -> Iterator[tuple[Path, int | None, Tensor]]:
    for file in files:
        try:
            found = read(file, model.shape, model.values)
        except ConfigError as error:
            refuse(str(error))
            continue
        single = len(found) == 1 and file.suffix.lower() in ENDINGS
        for place, example in enumerate(found):
            yield file, None if single else place, example


def read(file: Path, shape: tuple[int, ...], values: str) -> Tensor:
    """Return the examples in a file: (examples, channels, *space), as the run's data were.

    An array is one example or several, with channels first, last, or, of one channel, left out.

    Args:
        file: a picture, `.npy` or `.npz`.
        shape: (channels, *space) of an example.
        values: `uint8` or `float32`.

    Raises:
        ConfigError: it can't be read, or its examples are of another size or type.
    """
    ending = file.suffix.lower()
    if ending in ENDINGS:
        stack = Stack(1)
        stack.add(str(file), read_bytes(file))
        array = stack.images[0]
    elif ending in ARRAYS:
        array = _array(file)
    else:
        raise ConfigError(f"{file} is none of {', '.join((*ENDINGS, *ARRAYS))}")
    found = _fitting(array, shape)
    if found is None or (ending in ENDINGS and len(found) > 1):
        raise ConfigError(
            f"{file} has the size {_size(array.shape)}, and the run is for {_size(shape)} "
            "(channels, then space): make it that size"
        )
    if array.dtype != np.uint8 if values == "uint8" else array.dtype.kind != "f":
        need = "pixels from 0 to 255, saved as uint8" if values == "uint8" else "floats"
        raise ConfigError(
            f"{file}: values are {array.dtype}, and the run's data are {values}: give {need}"
        )
    return torch.from_numpy(np.ascontiguousarray(found, dtype=values))


def _array(file: Path) -> np.ndarray:
    """Return the examples of a NumPy file."""
    check_file(file)
    with reading(str(file)), file.open("rb") as opened:
        check_archive(opened, str(file))
        found = np.load(opened, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = found.files
            chosen = names if len(names) == 1 else [name for name in _EXAMPLES if name in names]
            if not chosen:
                raise ConfigError(
                    f"{file} has the arrays {', '.join(names)}; expected one, or one that is named "
                    f"{', '.join(_EXAMPLES)}"
                )
            return found[chosen[0]]


def _fitting(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a view (examples, channels, *space) of an array; None where it does not fit."""
    channels, *space = shape
    if array.shape[-len(shape) :] == shape:
        return array.reshape(-1, *shape) if array.ndim <= len(shape) + 1 else None
    if array.shape[-len(shape) :] == (*space, channels):
        first = np.moveaxis(array, -1, -len(shape))
        return first.reshape(-1, *shape) if array.ndim <= len(shape) + 1 else None
    if channels == 1 and array.shape[-len(space) :] == tuple(space):
        return array.reshape(-1, *shape) if array.ndim <= len(space) + 1 else None
    return None


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
