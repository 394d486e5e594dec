"""Data sets that Python made, kept on this machine under the hash of all that they hold.

Such a set is ``kept/SHA256.npz`` in the user's cache: the arrays of `Dataset.arrays`, and
``about``, a JSON text with the classes, the domains and all else that is known of it. So the name
``kept:SHA256`` stands for the same data wherever it is found.
"""

import io
import json
import re
from pathlib import Path

import numpy as np
import platformdirs
import torch

from fl.config.parsing import ConfigError
from fl.data.dataset import DataNotHere, Dataset, Split
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import fingerprint, write_whole

SCHEME = "kept"


def place(digest: str) -> Path:
    """Where a data set of this hash is kept on this machine."""
    return platformdirs.user_cache_path("fednf") / SCHEME / f"{digest}.npz"


def keep(dataset: Dataset) -> str:
    """Write a data set to the user's cache, if it is not there; returns its name.

    Raises:
        OSError: the cache can't be written to, or the disk is full.
    """
    about = {
        "name": dataset.name,
        "classes": dataset.classes,
        "domains": dataset.domains,
        "licence": dataset.licence,
        "source": dataset.source,
        "moments": dataset.moments,
    }
    arrays = {**dataset.arrays(), "about": np.array(json.dumps(about, sort_keys=True))}
    digest = fingerprint(arrays)
    if not place(digest).is_file():
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # pyrefly: ignore
        write_whole(place(digest), buffer.getvalue())
    return f"{SCHEME}:{digest}"


def kept(digest: str) -> Dataset:
    """Load a data set by its hash, and check every byte of it.

    Raises:
        DataNotHere: it is not on this machine.
        ConfigError: the file is damaged.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError(f"data.name={SCHEME}:{digest}: expected a name that `keep` returned")
    path = place(digest)
    if not path.is_file():
        raise DataNotHere(
            f"data set {SCHEME}:{digest} is not on this machine: make it here with the program "
            f"that made it, or copy its file to {path}"
        )
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        if (now := fingerprint(arrays)) != digest:
            raise ValueError(f"its content has the hash {now}")
        about = json.loads(str(arrays.pop("about")))
        return _dataset({n: torch.from_numpy(array) for n, array in arrays.items()}, about)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged zip file leads its reader to
        raise ConfigError(
            f"{path} is damaged ({in_words(error)}); delete it, and make the data set again"
        ) from None


def _dataset(tensors: dict[str, torch.Tensor], about: dict) -> Dataset:
    train, test = (
        Split(tensors[f"{name}_images"], tensors[f"{name}_labels"], tensors.get(f"{name}_domains"))
        for name in ("train", "test")
    )
    moments = about["moments"]
    return Dataset(
        name=about["name"],
        train=train,
        test=test,
        classes=tuple(about["classes"]),
        licence=about["licence"],
        source=about["source"],
        domains=tuple(about["domains"]),
        moments=(tuple(moments[0]), tuple(moments[1])) if moments else None,
    )
