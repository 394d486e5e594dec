"""The data sets known by name, and the one file in which each is kept on this machine.

A fetched set is ``NAME.npz`` in the user's cache: the arrays of `Dataset.arrays`, and ``about``, a
JSON text with the source and the fingerprint that the arrays must have. How a set is fetched and
made is in `fl.data.sets`; nothing here needs it.
"""

import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch

from fl.config import DEVICES
from fl.config.parsing import ConfigError, Value, cut, did_you_mean
from fl.data import fashion_mnist_small
from fl.data.dataset import DataNotHere, Dataset, Split
from fl.data.names import CIFAR10, CIFAR100, DIGITS, EMOJI, LOBES, SHOULDER
from fl.reproducibility.files import at_home, is_there, write_whole

_REPO = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)?"
"""A repository's name on the Hugging Face hub."""


@dataclass(frozen=True)
class Entry:
    """A data set by name: what it holds, whose it is, and how its bytes are recognised."""

    name: str
    title: str
    train: int
    test: int
    shape: tuple[int, ...]
    """Of an example: (channels, *space)."""
    classes: tuple[str, ...]
    licence: str
    citation: str
    domains: tuple[str, ...] = ()
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Known mean and standard deviation of each channel, training split, bytes / 255."""
    fingerprint: str | None = None
    """`Dataset.fingerprint` of the set made from its pinned packages; None: there are none."""

    def dataset(self, train: Split, test: Split, source: str) -> Dataset:
        """Return the data set that this entry names, with the given examples."""
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            classes=self.classes,
            licence=self.licence,
            source=source,
            domains=self.domains,
        )


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            fashion_mnist_small.NAME, "clothes, a subset that is shipped", 5000, 1000, (1, 28, 28),
            fashion_mnist_small.CLASSES, "MIT, (c) 2017 Zalando SE",
            "Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747",
        ),
        Entry(
            "fashion-mnist", "clothes", 60000, 10000, (1, 28, 28),
            fashion_mnist_small.CLASSES, "MIT, (c) 2017 Zalando SE",
            "Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747",
            moments=((0.286041,), (0.353024,)),
            fingerprint="4d3dc774ee2dad47f214173894fdcdb0066841feabc4b0bb4a98702e21c707a9",
        ),
        Entry(
            "cifar10", "small colour photographs", 50000, 10000, (3, 32, 32), CIFAR10,
            "images: unknown",
            "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            moments=((0.491400, 0.482158, 0.446531), (0.247032, 0.243485, 0.261588)),
            fingerprint="64d3b288672eb7ff69d0129c7907d0145feabe777582c34cedbe84cc1a4515be",
        ),
        Entry(
            "cifar100", "small colour photographs", 50000, 10000, (3, 32, 32), CIFAR100,
            "images: unknown",
            "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            moments=((0.507076, 0.486549, 0.440918), (0.267334, 0.256438, 0.276150)),
        ),
        Entry(
            "mnist", "handwritten digits", 60000, 10000, (1, 28, 28), DIGITS, "not stated",
            "LeCun, Bottou, Bengio and Haffner 1998, Proc. IEEE 86(11)",
            moments=((0.130660,), (0.308108,)),
        ),
        Entry(
            "mnist-10k", "10,000 of MNIST's training digits", 8500, 1500, (1, 28, 28), DIGITS,
            "package: MIT; images: not stated",
            "LeCun, Bottou, Bengio and Haffner 1998, Proc. IEEE 86(11)",
            fingerprint="0ac2836675bcd56573ec8cba15e21a66194579ac71f5fa23923bb7408b3f9746",
        ),
        Entry(
            "digits", "handwritten digits, 8x8, values 0 to 16", 1438, 359, (1, 8, 8), DIGITS,
            "BSD-3-Clause (scikit-learn)",
            "Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits",
            fingerprint="38deb3c00fcee211fd03035d38c537e89b4ff15441c99934b88b670f6e28c634",
        ),
        Entry(
            "emoji", "emoji as two vendors draw them", 3048, 764, (3, 32, 32), EMOJI,
            "Noto: Apache-2.0; Twemoji: CC-BY-4.0",
            "Google Noto Emoji; Twitter Twemoji; by emoji-datasource 16.0.0",
            domains=("google", "twitter"),
            fingerprint="ca51c9ea458084753d0c5bb473fd5670990a43830007271e9f2a50db735570a4",
        ),
        Entry(
            "watch", "a watch's accelerometer and gyroscope, 2 s at 50 Hz", 3691, 770, (6, 100),
            SHOULDER, "BSD-3-Clause (seglearn)",
            "Burns, Leung, Hardisty, Whyne, Henry and McLachlin 2018, arXiv 1802.01489",
            domains=tuple(f"subject {number}" for number in range(1, 11)),
            fingerprint="b9caf46fc201eb2e7585d9ae7ca3d9cabb9a2be28c9e44f66543c86ce5cff18e",
        ),
        Entry(
            "brain3d", "patches of one averaged brain (a toy)", 2100, 700, (1, 24, 24, 24), LOBES,
            "BSD-3-Clause (mricron-data)",
            "Colin27: Holmes et al. 1998, JCAT 22(2); AAL: Tzourio-Mazoyer et al. 2002",
            fingerprint="b416e504ca8ba54b3373ca99b321b22f8db03f4cc9783e07c86c5d922bbdff00",
        ),
    )
}  # fmt: skip


def find(name: str) -> Entry:
    """Return the entry of a name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in CATALOGUE:
        hint = did_you_mean(name, CATALOGUE)
        raise ConfigError(f"data.name={name}: no such data set; {hint}")
    return CATALOGUE[name]


def place(name: str) -> Path:
    """Where a fetched data set is kept on this machine."""
    return platformdirs.user_cache_path("fednf") / f"{name}.npz"


def write(dataset: Dataset, pinned: bool) -> Path:
    """Keep a data set on this machine; returns the file.

    `pinned` says that it came from pinned packages, so that the catalogue knows its fingerprint.
    """
    about = {"source": dataset.source, "fingerprint": dataset.fingerprint, "pinned": pinned}
    buffer = io.BytesIO()
    np.savez(buffer, **{"about": np.array(json.dumps(about)), **dataset.arrays()})  # pyrefly: ignore
    write_whole(place(dataset.name), buffer.getvalue())
    return place(dataset.name)


def read(entry: Entry) -> Dataset:
    """Load a data set from this machine and check every byte of it.

    Raises:
        DataNotHere: it was not fetched yet; the message says how to.
        ConfigError: the file is damaged.
    """
    if entry.name == fashion_mnist_small.NAME:
        return fashion_mnist_small.load()
    path, again = place(entry.name), f"fednf data fetch {entry.name}"
    if not path.is_file():
        raise DataNotHere(f"data set {entry.name} is not on this machine; fetch it with: {again}")
    with path.open("rb") as file:
        try:
            dataset, expected = _decode(entry, file)
        except Exception as error:  # whatever a damaged zip file leads its reader to
            raise ConfigError(f"{path} is damaged ({error}); fetch it again: {again}") from None
    if dataset.fingerprint != expected:
        raise ConfigError(
            f"{path} is damaged: fingerprint {dataset.fingerprint}, expected {expected}; "
            f"fetch it again: {again}"
        )
    return dataset


def _decode(entry: Entry, file: io.BufferedReader) -> tuple[Dataset, str | None]:
    """Return the data set that a file holds, and the fingerprint that it has to have."""
    with np.load(file, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays if name != "about"}
    train, test = (
        Split(tensors[f"{name}_images"], tensors[f"{name}_labels"], tensors.get(f"{name}_domains"))
        for name in ("train", "test")
    )
    dataset = entry.dataset(train, test, about["source"])
    return dataset, entry.fingerprint if about["pinned"] else about["fingerprint"]


def state(name: str) -> str:
    """Return the state that a data set's files are in, as `fl.data.own.changes.state`."""
    kind, _, rest = name.partition(":")
    if name in (fashion_mnist_small.NAME, DEVICES) or kind in ("kept", "hf"):
        return ""  # in the package, elsewhere, or named by its own bytes
    from fl.data.own import changes  # which what is shipped does not need

    if name in CATALOGUE or kind == "medmnist":
        path = place(name) if name in CATALOGUE else _medmnist_file(rest)
    else:
        path = at_home(name)
    return changes.state(path)


def load(name: str, layout: str = "auto") -> Dataset:
    """Return a data set by any name or path; see `fl.data.load`, which keeps it.

    Args:
        name: a name or a path, see `fl.data.load`.
        layout: `data.layout`, what the axes of arrays in a file are.

    Raises:
        ConfigError: there is no such data set, or its files are not what they should be.
        DataNotHere: its file is not on this machine.
    """
    if name == DEVICES:
        raise DataNotHere(
            f"data.name={DEVICES}: the images are on devices, and none are here; "
            "see docs/guide/devices.md"
        )
    if name in CATALOGUE:
        return read(CATALOGUE[name])
    kind, _, rest = name.partition(":")
    if kind == "kept":
        from fl.data.own import kept

        return kept(rest)
    if kind == "hf":
        if not re.fullmatch(_REPO, rest):
            raise ConfigError(f"data.name={cut(name)}: expected hf:NAME or hf:OWNER/NAME")
        from fl.data.formats import hub  # readers that a known data set does not need

        return hub(rest)
    path = _medmnist(rest) if kind == "medmnist" and rest else at_home(name)
    if not name.strip():
        raise ConfigError("data.name is empty; expected the name of a data set, or a path")
    if not is_there(path):
        if _is_path(name):
            hint = "; variables such as $HOME are not read here" * ("$" in name)
            raise ConfigError(f"data.name={cut(name)}: {cut(path)} does not exist{hint}")
        return read(find(name))  # which says what is near
    from fl.data.formats import read as read_files

    return read_files(path, layout=layout)


def data_beside(flat: Mapping[str, Value], folder: Path) -> dict[str, Value]:
    """Return the flat knobs of a file in a folder, paths of data and weights beside it made whole.

    A path from where the command was typed goes first, as it always has.
    """
    found = dict(flat)
    for key in ("data.name", "run.start-from"):
        name = str(flat.get(key, ""))
        if not name or name in CATALOGUE or ":" in name or os.path.exists(at_home(name)):
            continue
        if os.path.exists(beside := folder / at_home(name)):
            found[key] = str(beside.resolve())
    return found


def absolute(name: str) -> str:
    """Return a data set's name; the path of a file or folder that is there is written whole."""
    if name in CATALOGUE or ":" in name or not os.path.exists(path := at_home(name)):
        return name
    return str(path.resolve())


def _is_path(name: str) -> bool:
    """Whether a name looks like that of a file or a folder, and not like one of the catalogue."""
    return name.startswith(("~", ".")) or "/" in name or "\\" in name or bool(Path(name).suffix)


def _medmnist(name: str) -> Path:
    """Return the file of a MedMNIST set, from where MedMNIST's own package puts it, or the cache.

    Raises:
        DataNotHere: it is in neither; ConfigError: that is no name.
    """
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"data.name=medmnist:{name}: expected a name such as organmnist3d")
    found = _medmnist_file(name)
    if found.is_file():
        return found
    raise DataNotHere(
        f"data set medmnist:{name} is not on this machine; put {name}.npz (medmnist.com) at {found}"
    )


def _medmnist_file(name: str) -> Path:
    places = Path.home() / ".medmnist" / f"{name}.npz", place(name)
    return next((path for path in places if path.is_file()), places[0])
