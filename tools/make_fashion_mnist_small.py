"""Draw fashion-mnist-small from Fashion-MNIST's four IDX files.

    python tools/make_fashion_mnist_small.py FOLDER

FOLDER holds ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` and the two ``t10k``
files (Debian: package ``dataset-fashion-mnist``; elsewhere: the data set's own distribution).
500 training and 100 test images of each class are drawn without replacement with seed 20261121,
kept in their original order, and written to ``fl/data/shipped/``. The file is the same, byte for
byte, whenever this script runs with the same zlib; what is pinned is the checksum of the decoded
arrays, printed at the end.
"""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

from fl.reproducibility.files import fingerprint

SEED = 20261121
PER_CLASS = {"train": 500, "t10k": 100}
OUT = Path(__file__).parent.parent / "fl" / "data" / "shipped" / "fashion-mnist-small.npz"


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes: magic 0 0 8 NDIM, big-endian sizes, then the values."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, dims = struct.unpack(">HBB", raw[:4])
    if (zero, kind) != (0, 8):
        raise SystemExit(f"{path} is not an IDX file of unsigned bytes: it begins with {raw[:4]!r}")
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def draw(folder: Path, split: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many images of every class; returns images (N, 1, 28, 28) and labels (N,)."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    chosen = np.concatenate(
        [
            rng.choice(np.flatnonzero(labels == label), PER_CLASS[split], replace=False)
            for label in range(10)
        ]
    )
    chosen.sort()
    return images[chosen, None], labels[chosen]


def main() -> None:
    """Write the npz and print its checksum."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    rng = np.random.default_rng(SEED)
    folder = Path(sys.argv[1])
    train_images, train_labels = draw(folder, "train", rng)
    test_images, test_labels = draw(folder, "t10k", rng)
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    np.savez_compressed(OUT, **arrays)
    print(OUT.name, OUT.stat().st_size, "bytes, arrays' sha256", fingerprint(arrays))  # noqa: T201


if __name__ == "__main__":
    main()
