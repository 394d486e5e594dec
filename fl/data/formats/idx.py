"""IDX files as MNIST, Fashion-MNIST and EMNIST come in, plain or gzipped.

A big-endian header (two zero bytes, type 8 for bytes, the number of dimensions, one uint32 for
each) and then the bytes: yann.lecun.com/exdb/mnist. EMNIST (arXiv 1702.05373) stores its images
with rows and columns exchanged, and numbers the classes of its set ``letters`` from 1; both are
put right here.
"""

import gzip
import math
import re
from pathlib import Path

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.parts import Found, Part
from fl.data.formats.reading import reading
from fl.reproducibility.machine import check_file, fits

_IMAGES = re.compile(r"(emnist-[a-z]+-|)(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
_CHUNK = 1 << 20  # bytes unzipped at a time, straight into the array


def holds(path: Path) -> bool:
    """Whether a folder has images in IDX files; the path may also be one of these files."""
    return bool(_sets(path))


def read(path: Path) -> Found:
    """Read the four files of a set; where a folder holds several EMNIST sets, name a file."""
    sets = _sets(path)
    if len(sets) > 1:
        raise ConfigError(f"{path} holds {len(sets)} sets; give the path of one's train-images")
    (name,) = sets
    folder = path.parent if path.is_file() else path
    train = _part(folder, name, ("train",))
    return Found("IDX files", train, _part(folder, name, ("t10k", "test")))


def _sets(path: Path) -> set[str]:
    """Return the sets that files belong to: ``emnist-SPLIT-``, or nothing for MNIST's names."""
    files = [path] if path.is_file() else path.iterdir()
    return {match[1] for file in files if (match := _IMAGES.fullmatch(file.name))}


def _part(folder: Path, name: str, splits: tuple[str, ...]) -> Part:
    images = _find(folder, [f"{name}{split}-images" for split in splits], "idx3")
    labels = _find(folder, [f"{name}{split}-labels" for split in splits], "idx1")
    pixels, classes = _array(images, 3), _array(labels, 1)
    if name:
        pixels = np.ascontiguousarray(pixels.swapaxes(1, 2))
    if name == "emnist-letters-":
        classes = classes.astype(np.int64) - 1
    return Part(str(images), pixels[:, None], classes)


def _find(folder: Path, stems: list[str], kind: str) -> Path:
    endings = [f"{dot}{kind}-ubyte{packed}" for dot in "-." for packed in ("", ".gz")]
    places = [folder / (stem + ending) for stem in stems for ending in endings]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(f"{folder} has no {' or '.join(stems)}-{kind}-ubyte, plain or .gz")
    return found


def _array(file: Path, dims: int) -> np.ndarray:
    """Read one file, checking magic number and length against its header."""
    check_file(file)
    opened = gzip.open if file.suffix == ".gz" else open
    with reading(str(file)), opened(file, "rb") as stream:
        magic, sizes = stream.read(4), stream.read(4 * dims)
        if magic != bytes((0, 0, 8, dims)):
            raise ConfigError(
                f"{file}: magic number {magic.hex() or 'missing'}, expected 0000080{dims}: bytes "
                f"in {dims} dimension{'s' * (dims > 1)}"
            )
        if len(sizes) < 4 * dims:
            raise ConfigError(f"{file} is cut off within its header")
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        fits(f"{file}: the header {shape} asks for", math.prod(shape))
        values = np.empty(math.prod(shape), np.uint8)
        view, done = values.data, 0
        while got := stream.readinto(view[done : done + _CHUNK]):
            done += got
        if done < len(values) or stream.read(1):
            raise ConfigError(
                f"{file}: the header {shape} asks for {len(values)} bytes, the file has "
                f"{done if done < len(values) else 'more'}"
            )
    return values.reshape(shape)
