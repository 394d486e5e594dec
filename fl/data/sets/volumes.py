"""From the files of a package to volumes: patches of one brain."""

import gzip
import struct

import numpy as np

from fl.data.dataset import Split
from fl.data.sets.images import SEED, Parts, shuffled, to_split
from fl.data.sets.packages import Files
from fl.reproducibility.seeds import stream

_SIDE = 24  # voxels of 1 mm
_PER_LOBE = {"train": 300, "test": 100}
_LOBES = (2, 4, 5, 6, 7, 8, 9)  # thousands of the AAL codes; 3, the insula, is small


def brain3d(files: Files) -> Parts:
    """Cut patches of 24 mm whose centres lie in seven lobes of the Colin27 brain.

    Left patches are the training split, right patches, mirrored, the test. A patch lies in one
    hemisphere, so no voxel is in both splits. Inside a split patches overlap: 2,800 of them come
    from one averaged brain, so this shows that volumes work, and no more.
    """
    folder = "usr/share/mricron/templates"
    brain = _nifti(files[f"{folder}/ch2.nii.gz"])
    regions = _nifti(files[f"{folder}/aal.nii.gz"])
    table = [line.split() for line in files[f"{folder}/aal.nii.txt"].decode().splitlines()]
    lobes = np.zeros(256, np.int64)
    for number, name, code in (row for row in table if len(row) == 3):
        if name.endswith(("_L", "_R")) and int(code) // 1000 in _LOBES:
            lobes[int(number)] = _LOBES.index(int(code) // 1000) + 1
    lobe = lobes[regions]
    left, right = _patches(brain, lobe, "train"), _patches(brain[::-1], lobe[::-1], "test")
    return shuffled((left, right), "brain3d")


def _patches(brain: np.ndarray, lobe: np.ndarray, split: str) -> Split:
    """Draw patches of the half with small x, the same number of every lobe."""
    rng, half = stream(SEED, "brain3d", split, "centres"), _SIDE // 2
    middle = brain.shape[0] // 2
    centres = np.zeros(lobe.shape, bool)
    centres[half : middle - half + 1, half:-half, half:-half] = True
    images, labels = [], []
    for label in range(len(_LOBES)):
        places = np.argwhere(centres & (lobe == label + 1))
        for place in rng.choice(places, _PER_LOBE[split], replace=False):
            x, y, z = place - half
            images.append(brain[x : x + _SIDE, y : y + _SIDE, z : z + _SIDE])
            labels.append(label)
    return to_split(np.stack(images)[:, None], labels)


def _nifti(raw: bytes) -> np.ndarray:
    """Read a NIfTI-1 volume of bytes: sizes at 40, type at 70, offset at 108; x runs fastest."""
    raw = gzip.decompress(raw)
    dims, *shape = struct.unpack_from("<4h", raw, 40)
    (kind,) = struct.unpack_from("<h", raw, 70)
    (offset,) = struct.unpack_from("<f", raw, 108)
    if (dims, kind, raw[344:348]) != (3, 2, b"n+1\0"):
        raise ValueError(f"expected a NIfTI-1 volume of bytes, found {dims}-D, type {kind}")
    values = np.frombuffer(raw, np.uint8, int(np.prod(shape)), int(offset))
    return values.reshape(shape, order="F")
