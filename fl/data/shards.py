"""The one file in which a device has the images that it was dealt.

A shard is ``shard.npz``: ``train_images``, ``train_labels``, ``held_out_images`` and
``held_out_labels`` as `Dataset` has them, in the order of the deal, and ``about``, a JSON text with
all else that training needs: the classes, the mean and the deviation of the *whole* training split,
the client's noise, the law of the deal, the fingerprint of the data set that was dealt, and that of
the arrays. So a device trains to
the same bytes as a simulated client that was dealt these images. NumPy is enough to read one.
"""

import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fl.config.parsing import ConfigError, Value
from fl.data.dataset import Dataset, Share, Split
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import fingerprint, write_whole
from fl.reproducibility.machine import check_file

FILE = "shard.npz"


def write(folder: Path, share: Share, law: dict[str, Value]) -> Path:
    """Write a share to a folder; returns the file.

    Args:
        folder: is made where it is not there.
        share: what is dealt to the client.
        law: all that the deal depends on, besides the data.

    Raises:
        OSError: the folder can't be written to, or the disk is full.
    """
    dataset = share.dataset
    parts = {"train": dataset.train.only(share.train), "held_out": share.scored}
    arrays = {
        f"{name}_{what}": getattr(split, what).numpy()
        for name, split in parts.items()
        for what in ("images", "labels")
    }
    about = {
        "name": dataset.name,
        "classes": dataset.classes,
        "licence": dataset.licence,
        "source": dataset.source,
        "moments": (dataset.mean.tolist(), dataset.std.tolist()),
        "noise": share.noise,
        "law": law,
        "dealt_from": dataset.fingerprint,
        "fingerprint": fingerprint(arrays),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{"about": np.array(json.dumps(about)), **arrays})  # pyrefly: ignore
    write_whole(folder / FILE, buffer.getvalue())
    return folder / FILE


def holds(path: Path) -> bool:
    """Whether a path is a shard, or a folder with one."""
    return path.name == FILE or (path / FILE).is_file()


def read(path: Path) -> tuple[Share, dict[str, Value]]:
    """Read a shard and check every byte of it; returns it with the law of its deal.

    Args:
        path: of the file or of its folder.

    Raises:
        ConfigError: it can't be read, or is damaged.
    """
    file = path if path.name == FILE else path / FILE
    check_file(file)
    try:
        found = file.stat()
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror or error}") from None
    return _read(file, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@lru_cache(maxsize=8)
def _read(file: Path, state: tuple[int, ...]) -> tuple[Share, dict[str, Value]]:
    """Read a file once for each state in which it is: size, times and number."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
            arrays = dict(found)
        about = json.loads(str(arrays.pop("about")))
        if (now := fingerprint(arrays)) != about["fingerprint"]:
            raise ValueError(f"fingerprint {now}, expected {about['fingerprint']}")
        return _share(arrays, about), about["law"]
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged zip file leads its reader to
        raise ConfigError(f"{file} is damaged ({in_words(error)}); copy it again") from None


def _share(arrays: dict[str, np.ndarray], about: dict) -> Share:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    train, held_out = (
        Split(tensors[f"{name}_images"], tensors[f"{name}_labels"])
        for name in ("train", "held_out")
    )
    both = Split(
        torch.cat([train.images, held_out.images]), torch.cat([train.labels, held_out.labels])
    )
    mean, std = about["moments"]
    dataset = Dataset(
        name=about["name"],
        train=both,
        test=held_out.only(torch.empty(0, dtype=torch.int64)),
        classes=tuple(about["classes"]),
        licence=about["licence"],
        source=about["source"],
        moments=(tuple(mean), tuple(std)),
    )
    places = torch.arange(len(both))
    dealt_from = str(about.get("dealt_from", ""))  # which earlier versions did not write
    ends = places[: len(train)], places[len(train) :]
    return Share(dataset, *ends, about["noise"], "shard", dealt_from)
