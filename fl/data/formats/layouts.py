"""Which layout a path has, and who reads it."""

import os
from dataclasses import replace
from pathlib import Path

from fl.config.parsing import ConfigError
from fl.data.dataset import Dataset
from fl.data.formats import cifar, folder, idx, npz, parquet
from fl.data.formats.parts import among, dataset, named
from fl.data.formats.reading import reading
from fl.reproducibility.machine import check_file

LAYOUTS = (idx, cifar, npz, parquet, folder)
ACCEPTED = (
    "a folder of IDX files, cifar-10-batches-py or -bin, cifar-100-python or -binary, an .npz with "
    "MedMNIST's or Keras' names, a folder with SPLIT-*.parquet, or a folder train|test/CLASS/*.png"
)


def read(path: Path, classes: str = "", layout: str = "auto") -> Dataset:
    """Read a user's files into memory, whatever of the accepted layouts they are in.

    Pixels come out as they are stored, bit for bit. Labels have to be 0 to K-1; where the files
    don't name their K classes, each has to occur in the training split. No pickle is executed.

    Args:
        path: a file or a folder.
        classes: where files may lack some: `data.classes`.
        layout: what the axes of arrays are: `data.layout`.

    Raises:
        ConfigError: no such path or layout, a damaged file, or data that can't be trained on; the
            one line names the file.
    """
    with reading(str(path)):
        if not os.path.lexists(path):
            raise ConfigError(f"{path} does not exist")
        if not path.is_dir():
            check_file(path)
        reader = next((reader for reader in LAYOUTS if reader.holds(path)), None)
    if reader is None:
        own = f"; of a function's data say {path}:NAME" if path.suffix == ".py" else ""
        raise ConfigError(f"{path} has no layout that is known here{own}; accepted: {ACCEPTED}")
    known = named(classes)
    if reader is npz:
        found = npz.read(path, layout)
    elif layout != "auto":
        raise ConfigError(
            f"data.layout={layout} is for arrays in an .npz file, and {path} is none; leave it out"
        )
    else:
        found = folder.read(path, known) if reader is folder else reader.read(path)
    if known and found.classes is None:
        found = replace(found, classes=known)
    whole = dataset(found, str(path), str(path), "unknown: your own files")
    return among(whole, known) if known else whole
