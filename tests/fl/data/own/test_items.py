"""Data sets of PyTorch's and the like, read item by item."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from fl.config.parsing import ConfigError
from fl.data.own import Dataset, items

IMAGES = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(10) % 2
TENSORS = TensorDataset(IMAGES, LABELS)


class Listed:
    """A map-style data set of a list."""

    def __init__(self, rows, **attributes):
        self.rows = rows
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


def test_tensors_are_read_as_they_are():
    data = Dataset.read(TENSORS, Subset(TENSORS, [3, 4, 9]))
    assert torch.equal(data.train.images, IMAGES)
    assert torch.equal(data.test.images, IMAGES[[3, 4, 9]])
    assert data.test.labels.tolist() == [1, 0, 1]
    assert data.classes == ("0", "1")


def test_a_random_item_is_asked_for_once():
    asked = []

    class Random(Listed):
        def __getitem__(self, number):
            asked.append(number)
            return super().__getitem__(number)

    Dataset.read(Random([(torch.zeros(3, 8, 8), 0)] * 4), test=0.25)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_pictures_are_read_with_the_names_of_their_classes(mode, channels):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 4, channels), np.uint8)
    pictures = [
        (image.fromarray(p[..., 0] if channels == 1 else p), n % 2) for n, p in enumerate(pixels)
    ]
    assert pictures[0][0].mode == mode
    data = Dataset.read(*(Listed(pictures, classes=["cat", "dog"]) for _ in range(2)))
    assert torch.equal(data.train.images, torch.from_numpy(pixels).movedim(-1, 1))
    assert (data.form, data.classes) == (((channels, 5, 4), 2), ("cat", "dog"))


def test_tables_are_read_by_the_names_of_their_columns():
    """Hugging Face's data sets give dictionaries, and name classes in their features."""
    rows = [{"id": n, "img": np.full((2, 2, 3), n, np.uint8), "label": n % 2} for n in range(4)]
    table = Listed(rows, features={"label": SimpleNamespace(names=["no", "yes"])})
    data = Dataset.read(table, table)
    assert data.classes == ("no", "yes")
    assert data.train.images[:, 1, 0, 1].tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="item 0 has the columns id, and none of image, img"):
        Dataset.read(Listed([{"id": 1}]), test=0.5)


def test_labels_may_be_names_targets_or_masks():
    image = np.zeros((3, 5, 5), np.uint8)
    named = Dataset.read(Listed([(image, name) for name in ("dog", "cat", "dog")]), test=0.5)
    assert named.classes == ("cat", "dog")
    targets = Dataset.read(Listed([(image, n / 3) for n in range(4)]), test=0.25)
    assert targets.train.labels.dtype == torch.float32
    masks = Dataset.read(Listed([(image, np.full((5, 5), n)) for n in range(4)]), test=0.25)
    assert masks.train.labels.shape == (3, 5, 5)


def test_progress_goes_to_a_function_or_to_lines(capsys, monkeypatch):
    told = []
    Dataset.read(TENSORS, TENSORS, progress=lambda *figures: told.append(figures))
    assert told == [(n, 20) for n in range(1, 21)]
    said = capsys.readouterr().err
    assert said == "reading: 10 + 10 items, as large as the first ones, take 0.00 GB of memory\n"
    monkeypatch.setattr(items, "_QUIET_SECONDS", 0)
    Dataset.read(TENSORS, TENSORS)
    assert "read 20 of 20\n" in capsys.readouterr().err


def test_what_memory_would_not_hold_is_refused_before_reading(monkeypatch):
    class Huge(Listed):
        def __len__(self):
            return 10**6

    monkeypatch.setattr(items, "_memory", lambda: 10**9)
    with pytest.raises(ConfigError, match=r"1,000,000 items, .* take 0.78 GB .* may have 0.75 GB"):
        Dataset.read(Huge([(IMAGES[0], 1)]), test=0.5)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TENSORS)


REFUSED = {
    "train is a DataLoader; give the data set in it: loader.dataset": DataLoader(TENSORS),
    "train is Stream, which can't be asked for one item; give a map-style": Stream(),
    "train is generator, which can't be asked": (one for one in TENSORS),
    "train is Tensor; give arrays to fl.Dataset itself": IMAGES,
    "train is dict of train, test; give one of them": {"train": TENSORS, "test": TENSORS},
    "train has no items": Listed([]),
    "train, item 0 is Tensor, expected .image, label.": Listed(IMAGES),
    "train, item 0 has str as its image": Listed([("cat.png", 1)]),
    r"image of item 2 has the shape \(3, 9, 8\), that of item 0 \(3, 8, 8\)": Listed(
        [(torch.zeros(3, 8, 8), 0)] * 2 + [(torch.zeros(3, 9, 8), 0)]
    ),
    "image of item 1 is uint8, that of item 0 float32": Listed(
        [(np.zeros((3, 8, 8)), 0), (np.zeros((3, 8, 8), np.uint8), 0)]
    ),
    r"label of item 1 has the shape \(2,\), that of item 0 \(\)": Listed(
        [(IMAGES[0], 0), (IMAGES[0], [0, 1])]
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_can_t_be_read_is_refused_in_one_line(words):
    with pytest.raises(ConfigError, match=words) as error:
        Dataset.read(REFUSED[words], test=0.5)
    assert "\n" not in str(error.value)


def test_splits_whose_numbers_mean_other_classes_are_refused():
    one, other = (Listed([(IMAGES[0], 0)], classes=names) for names in (["a", "b"], ["b"]))
    with pytest.raises(ConfigError, match="train has the classes a, b, and test b"):
        Dataset.read(one, other)
