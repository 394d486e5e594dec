"""From the file of a package to signals: shoulder exercises as a watch feels them."""

import io
import pickle

import numpy as np

from fl.data.sets.images import Parts, shuffled, to_split
from fl.data.sets.packages import Files

_LENGTH, _STEP = 100, 50  # samples at 50 Hz: windows of 2 s, one a second
_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("_codecs", "encode"): lambda text, codec: text.encode({"latin1": "latin1"}[codec]),
}


def watch(files: Files) -> Parts:
    """Cut 140 recordings into windows (6 axes, 100 samples); who wore the watch is the domain.

    The last fifth of every recording is the test. Windows overlap by half inside a split, and no
    sample is in both splits.
    """
    recordings = _unpickle(files["seglearn/data/watch_dataset.npy"])
    parts = {"train": [], "test": []}
    for series, label, subject in zip(*(recordings[k] for k in ("X", "y", "subject")), strict=True):
        cut = len(series) * 4 // 5
        for name, part in (("train", series[:cut]), ("test", series[cut:])):
            for begin in range(0, len(part) - _LENGTH + 1, _STEP):
                parts[name].append((part[begin : begin + _LENGTH].T, label, subject - 1))
    train, test = (
        to_split(np.array(windows, np.float32), labels, np.array(subjects))
        for windows, labels, subjects in (zip(*part, strict=True) for part in parts.values())
    )
    return shuffled((train, test), "watch")


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and Python's own containers, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"refused: {module}.{name}")
        return _ARRAYS[module, name]


def _unpickle(raw: bytes) -> dict:
    """Return the one object of a .npy file of dtype object, without executing what it names."""
    file = io.BytesIO(raw)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    held = _ArraysOnly(file, encoding="latin1").load()
    return held.item()
