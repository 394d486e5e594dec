"""The hub itself is out of reach of tests: these are stand-ins, and `datasets` on local files."""

import io
import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fl.data.formats import hub


@dataclass
class Split:
    """The part of a `datasets.Dataset` that is used."""

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def features(self):
        return SimpleNamespace(arrow_schema=self.table.schema)

    def select_columns(self, columns):
        return Split(self.table.select(columns))

    def with_format(self, kind):
        assert kind == "arrow"
        return self

    def iter(self, size):
        return (self.table.slice(start, 2) for start in range(0, len(self), 2))


def split(images: np.ndarray, labels: np.ndarray) -> Split:
    def png(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels[0]).save(stream, "png")
        return stream.getvalue()

    cells = pa.array([{"bytes": png(pixels), "path": None} for pixels in images])
    table = pa.table(
        {"image": cells, "writer_id": [f"w{x}" for x in labels], "character": labels, "x": labels}
    )
    features = {"character": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": features}})
    return Split(table.replace_schema_metadata({"huggingface": info}))


@pytest.fixture
def package(monkeypatch):
    """Put a stand-in for `datasets` in place; it has what is put into `.splits`."""
    made = ModuleType("datasets")
    made.__version__, made.splits = "4.0.0", {}
    made.load_dataset = lambda repo: made.splits
    monkeypatch.setitem(sys.modules, "datasets", made)
    return made


@pytest.mark.parametrize("test", ["test", "validation"])
def test_splits_of_the_hub_become_a_data_set(examples, package, test):
    data = examples()
    package.splits = {
        "train": split(data.train_images, data.train_labels),
        test: split(data.test_images, data.test_labels),
    }
    found = hub("someone/letters")
    assert data.are(found)
    assert (found.name, found.classes) == ("hf:someone/letters", ("a", "b", "c"))
    assert found.domains == ("w0", "w1", "w2")
    assert found.train.domains.tolist() == data.train_labels.tolist()
    assert "https://huggingface.co/datasets/someone/letters" in found.source
    assert ("tested on validation" in found.source) == (test == "validation")
    assert found.licence == "unknown: see https://huggingface.co/datasets/someone/letters"


def test_an_image_of_another_size_is_named_by_its_row(examples, package, refusal):
    data, other = examples(), examples(shape=(1, 5, 5))
    train = split(np.array([*data.test_images]), data.test_labels).table
    odd = split(other.test_images, data.test_labels).table
    package.splits = {"train": Split(pa.concat_tables([train, odd])), "test": Split(train)}
    assert refusal("a/b", hub).startswith("hf:a/b, train, row 3 holds grey images of 5 × 5")


def test_what_the_hub_can_t_give_is_one_line(examples, package, refusal, monkeypatch):
    data = examples()
    package.splits = {"train": split(data.train_images, data.train_labels)}
    assert "hf:a/b has no test split" in refusal("a/b", hub)

    def offline(repo: str) -> None:
        raise ConnectionError("Couldn't reach\nthe Hub")

    package.load_dataset = offline
    assert refusal("a/b", hub) == "can't read hf:a/b: Couldn't reach the Hub"
    package.__version__ = "2.14.0"
    assert refusal("a/b", hub).startswith("datasets 2.14.0 may run a repository's code")
    monkeypatch.setitem(sys.modules, "datasets", None)
    line = refusal("a/b", hub)
    assert line.startswith("reading this needs datasets (")
    assert line.endswith('pip install "datasets>=4"')


def test_the_real_package_gives_the_same_for_local_files(tmp_path, examples, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    pytest.importorskip("datasets")
    data = examples(1500)
    for name in ("train", "test"):
        images, labels = getattr(data, f"{name}_images"), getattr(data, f"{name}_labels")
        pq.write_table(split(images, labels).table, tmp_path / f"{name}.parquet")
    assert data.are(hub(str(tmp_path)))
