"""A data set of Python's, kept under the hash of all that it holds."""

import numpy as np
import pytest
import torch

from fl.config.parsing import ConfigError
from fl.data import Split, load, shares
from fl.data.dataset import DataNotHere
from fl.data.own import Dataset, keeping

PIXELS = np.random.default_rng(1).integers(0, 256, (12, 3, 4, 5), np.uint8)
LABELS = np.arange(12) % 3
MASKS = np.arange(240).reshape(12, 4, 5) % 7


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shares._load.cache_clear()


def both(inputs=PIXELS, labels=LABELS, **options):
    return Dataset((inputs, labels), (inputs[:5], labels[:5]), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"classes": ["Äpfel", "b", "c"], "name": "fruit"},
        {"labels": np.linspace(0, 1, 12)},
        {"labels": MASKS, "inputs": PIXELS / 255},
        {"labels": np.eye(12, 4, dtype=bool)},
        {"domains": ([f"d{n}" for n in range(12)], None)},
        {"domains": (LABELS, LABELS[:5])},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_is_kept_is_loaded_as_it_was(options):
    data = both(**options)
    found = load(data.keep())
    assert found.fingerprint == data.fingerprint
    for name in ("name", "form", "classes", "domains", "licence", "source", "moments"):
        assert getattr(found, name) == getattr(data, name)
    assert torch.equal(found.inputs(found.train.images), data.inputs(data.train.images))


def test_the_name_is_that_of_the_content():
    name = both().keep()
    file = keeping.place(name.removeprefix("kept:"))
    written = file.stat().st_mtime_ns
    assert both().keep() == name
    assert file.stat().st_mtime_ns == written
    others = [
        both(classes=4),
        both(classes=["a", "b", "c"]),
        both(name="mine"),
        both(PIXELS ^ 1),
        both(labels=LABELS[::-1].copy()),
        both(domains=(LABELS, None)),
    ]
    assert len({name, *(data.keep() for data in others)}) == len(others) + 1


def test_what_is_not_here_or_damaged_is_one_line():
    name = both().keep()
    file = keeping.place(name.removeprefix("kept:"))
    whole = file.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2):
        shares._load.cache_clear()
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ConfigError, match="is damaged") as error:
            load(name)
        assert "\n" not in str(error.value)
    file.write_bytes(whole)
    other = file.with_name(f"{'0' * 64}.npz")
    file.rename(other)
    with pytest.raises(DataNotHere, match=r"is not on this machine.*copy its file to .*\.npz"):
        load(name)
    with pytest.raises(ConfigError, match="its content has the hash"):
        load(f"kept:{'0' * 64}")
    with pytest.raises(ConfigError, match="expected a name that `keep` returned"):
        load("kept:../x")


def test_a_data_set_of_ours_can_be_kept_too():
    found = load(keeping.keep(load("fashion-mnist-small")))
    assert found.fingerprint == load("fashion-mnist-small").fingerprint
    assert isinstance(found.train, Split)
