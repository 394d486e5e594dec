"""NumPy archives with MedMNIST's or Keras' names.

MedMNIST: ``{train,val,test}_{images,labels}`` (github.com/MedMNIST/MedMNIST, dataset.py). Its
validation split is for choosing knobs and belongs neither to training nor to the test, so it is
left alone. Keras: ``x_train, y_train, x_test, y_test``. Optional owners of examples are
``{train,test}_domains`` or ``{train,test}_client``.

Channels, where there are any, are the last axis, and of bytes there are 1, 3 or 4: uint8
(n, H, W) and (n, H, W, 1|3|4) are images, (n, D, H, W) and (n, D, H, W, 1|3|4) volumes, so a volume
with a last axis of 1, 3 or 4 voxels needs its channel axis. float32 (n, length) and
(n, length, channels) are signals.
"""

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from fl.config.parsing import ConfigError
from fl.data.formats.parts import Found, Part
from fl.data.formats.reading import reading

_NAMES = {"MedMNIST": ("{}_images", "{}_labels"), "Keras": ("x_{}", "y_{}")}
_OWNERS = ("{}_domains", "{}_client")
_CHANNELS = (1, 3, 4)


def holds(path: Path) -> bool:
    """Whether the path is an .npz file."""
    return path.is_file() and path.suffix == ".npz"


def read(path: Path) -> Found:
    """Read the training and the test arrays of an archive."""
    with reading(str(path)), path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ConfigError(f"{path} is a single array (.npy), not an archive of arrays")
        with arrays:
            style = next((s for s, (x, _) in _NAMES.items() if x.format("train") in arrays), None)
            if style is None:
                raise ConfigError(
                    f"{path} has neither train_images nor x_train: found {', '.join(arrays)}"
                )
            train, test = (_part(path, arrays, style, split) for split in ("train", "test"))
    return Found(f"{style}-style npz", train, test)


def _part(path: Path, arrays: NpzFile, style: str, split: str) -> Part:
    images, labels = (name.format(split) for name in _NAMES[style])
    for name in (images, labels):
        if name not in arrays:
            raise ConfigError(f"{path} has no {name}: found {', '.join(arrays)}")
    owners = next((key for name in _OWNERS if (key := name.format(split)) in arrays), None)
    classes = arrays[labels]
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    if classes.ndim != 1:
        raise ConfigError(
            f"{path}: {labels} is {classes.shape}; several labels an example, or one-hot ones, "
            "are not supported: give one whole number for each"
        )
    return Part(
        f"{path}: {images}",
        _channels_first(arrays[images], f"{path}: {images}"),
        classes,
        None if owners is None else arrays[owners],
    )


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    """Return a view (n, channels, *space) of an array whose last axis may be channels."""
    signals = array.dtype.kind == "f"
    coloured = array.ndim == 3 if signals else array.ndim > 3 and array.shape[-1] in _CHANNELS
    space = array.ndim - 1 - coloured
    if space not in ((1,) if signals else (2, 3)):
        expected = "(n, length) or (n, length, channels)" if signals else "(n, H, W), (n, D, H, W)"
        also = "; save pixels as uint8" if signals else ", or these with 1, 3 or 4 channels last"
        raise ConfigError(
            f"{where} is {array.dtype} {array.shape}; expected {array.dtype} {expected}{also}"
        )
    return np.moveaxis(array, -1, 1) if coloured else array[:, None]
