"""NumPy archives with MedMNIST's or Keras' names.

MedMNIST: ``{train,val,test}_{images,labels}`` (github.com/MedMNIST/MedMNIST, dataset.py). Its
validation split is for choosing knobs and belongs neither to training nor to the test, so it is
left alone. Keras: ``x_train, y_train, x_test, y_test``. Optional owners of examples are
``{train,test}_domains`` or ``{train,test}_client``.

`data.layout` says what the axes are. Without it the shape has to tell, by the rule of
`fl.data.own.axes`. Where several layouts fit, the file is refused.
"""

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from fl.config.parsing import ConfigError, cut
from fl.data.formats.parts import Found, Part
from fl.data.formats.reading import check_archive, reading
from fl.data.own.axes import channels_first

_NAMES = {"MedMNIST": ("{}_images", "{}_labels"), "Keras": ("x_{}", "y_{}")}
_OWNERS = ("{}_domains", "{}_client")
_ASKED = {
    name.format(split)
    for names in (*_NAMES.values(), _OWNERS)
    for name in names
    for split in ("train", "test")
}
"""The arrays of an archive that are read."""


def holds(path: Path) -> bool:
    """Whether the path is an .npz file."""
    return path.is_file() and path.suffix == ".npz"


def read(path: Path, layout: str = "auto") -> Found:
    """Read the training and the test arrays of an archive, whose axes `data.layout` names."""
    with reading(str(path)), path.open("rb") as file:
        check_archive(file, str(path), _ASKED)
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ConfigError(f"{path} is a single array (.npy), not an archive of arrays")
        with arrays:
            style = _style(path, arrays)
            (train, axes), (test, _) = (
                _part(path, arrays, style, split, layout) for split in ("train", "test")
            )
    return Found(f"{style}-style npz, {axes}", train, test)


def _style(path: Path, arrays: NpzFile) -> str:
    """Return whose names the arrays of an archive have.

    Raises:
        ConfigError: nobody's, or those of both, which may be two data sets.
    """
    first = {style: images.format("train") for style, (images, _) in _NAMES.items()}
    found = [style for style, name in first.items() if name in arrays]
    if len(found) != 1:
        has, joined = ("both", "and") if found else ("neither", "nor")
        raise ConfigError(
            f"{path} has {has} {f' {joined} '.join(first.values())}: found {cut(', '.join(arrays))}"
        )
    return found[0]


def _part(path: Path, arrays: NpzFile, style: str, split: str, layout: str) -> tuple[Part, str]:
    images, labels = (name.format(split) for name in _NAMES[style])
    for name in (images, labels):
        if name not in arrays:
            raise ConfigError(f"{path} has no {name}: found {cut(', '.join(arrays))}")
    owners = next((key for name in _OWNERS if (key := name.format(split)) in arrays), None)
    classes = arrays[labels]
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    if classes.ndim != 1:
        raise ConfigError(
            f"{path}: {labels} is {classes.shape}; several labels an example, or one-hot ones, "
            "are not supported: give one whole number for each"
        )
    where = f"{path}: {images}"
    found, axes = channels_first(_native(arrays[images]), layout, where)
    return Part(where, found, classes, None if owners is None else arrays[owners]), axes


def _native(array: np.ndarray) -> np.ndarray:
    """Return an array whose numbers have this machine's order of bytes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
