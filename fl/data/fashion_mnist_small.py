"""The shipped data set: 5,000 + 1,000 images of Fashion-MNIST, and where its file is found.

Fashion-MNIST (arXiv 1708.07747) is under the MIT licence; the notice lies beside the file. The
subset was drawn by ``tools/make_fashion_mnist_small.py`` with a recorded seed, 500 + 100 images of
each class.
"""

import hashlib
import io
import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import platformdirs
import torch

from fl.config.parsing import ConfigError
from fl.data.dataset import DataNotHere, Dataset, Split
from fl.reproducibility.files import write_whole

NAME = "fashion-mnist-small"
SHA256 = "5c52fa2dfe1711c8432dfdc91cd7f3280855c303e444db97023891f4705181f4"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_SHIPPED = Path("fl/data/shipped") / f"{NAME}.npz"


def load() -> Dataset:
    """Load the data set from the first place that has it.

    Raises:
        DataNotHere: it is nowhere; the message says how to put it into the cache.
        ConfigError: the file found is damaged.
    """
    path = next((path for path in places() if path.is_file()), None)
    if path is None:
        raise DataNotHere(
            f"data set {NAME} is neither beside the code, nor in {cache()}, nor in an installed "
            "fednf (a Flower bundle carries no images); run `fednf data list` once on this machine"
        )
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != SHA256:
        raise ConfigError(f"{path} is damaged: sha256 {found}, expected {SHA256}; delete it")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        train, test = (
            Split(
                torch.from_numpy(arrays[f"{split}_images"]),
                torch.from_numpy(arrays[f"{split}_labels"]).long(),
            )
            for split in ("train", "test")
        )
    return Dataset(
        name=NAME,
        train=train,
        test=test,
        classes=CLASSES,
        licence="MIT, (c) 2017 Zalando SE",
        source="Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747; 5,000 + 1,000 images, stratified",
    )


def places() -> tuple[Path, ...]:
    """Where the file may be, in the order of asking: beside this code, cache, installed fednf."""
    beside = Path(__file__).parent.parent.parent / _SHIPPED
    return (beside, cache(), *_installed())


def cache() -> Path:
    """Where this user's cached copy is: it serves code that runs from a Flower bundle."""
    return platformdirs.user_cache_path("fednf") / f"{NAME}.npz"


def fill_cache() -> None:
    """Copy the shipped file into the user's cache, unless it is there already."""
    beside = places()[0]
    if beside.is_file() and not cache().is_file():
        write_whole(cache(), beside.read_bytes())


def _installed() -> tuple[Path, ...]:
    """Return the file's place in an installed fednf, which a bundle's copy hides from import."""
    try:
        distribution = metadata.distribution("fednf")
    except metadata.PackageNotFoundError:
        return ()
    source = json.loads(distribution.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return (Path(unquote(urlparse(source["url"]).path)) / _SHIPPED,)
    return (Path(str(distribution.locate_file(_SHIPPED))),)
