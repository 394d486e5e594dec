import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fl.data.formats import arrow, read

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    shape = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    Image.fromarray(shape).save(stream, "png")
    return stream.getvalue()


def table(images, labels, image="image", label="label", struct=True, names=None, **more):
    raw = [png(pixels) for pixels in images]
    cells = pa.array(
        [{"bytes": x, "path": None} for x in raw] if struct else raw, STRUCT if struct else None
    )
    made = pa.table({image: cells, label: pa.array(labels), **more})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        made = made.replace_schema_metadata({"huggingface": info})
    return made


def write(folder: Path, data, test="test", shards=1, **columns) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    whole = table(data.train_images, data.train_labels, **columns)
    edges = np.linspace(0, len(whole), shards + 1).astype(int)
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        name = f"train-{number:05}-of-{shards:05}.parquet"
        pq.write_table(whole.slice(start, stop - start), folder / name, row_group_size=3)
    columns = {k: v for k, v in columns.items() if not isinstance(v, pa.Array)}
    pq.write_table(table(data.test_images, data.test_labels, **columns), folder / f"{test}.parquet")
    return folder


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9), st.sampled_from([1, 3, 4]), st.integers(1, 3), st.booleans(),
    st.sampled_from(["image", "img", "photo"]),
    st.sampled_from(["label", "labels", "fine_label", "character"]),
    st.sampled_from(["test", "validation", "valid"]), st.booleans(),
)  # fmt: skip
def test_what_is_written_is_read(
    tmp_path_factory, examples, n, channels, shards, struct, image, label, test, inside
):
    data = examples(n, 2, (channels, 4, 5))
    root = tmp_path_factory.mktemp("parquet")
    folder = root / "data" if inside else root
    write(folder, data, test, shards, image=image, label=label, struct=struct)
    found = read(root)
    assert data.are(found)
    assert found.classes == ("0", "1", "2")
    assert ("tested on" in found.source) == (test != "test")


def test_more_rows_than_are_taken_at_a_time(tmp_path, examples, monkeypatch):
    monkeypatch.setattr(arrow, "BATCH", 2)
    data = examples(20, 11)
    assert data.are(read(write(tmp_path, data, shards=2)))


def test_a_column_named_image_is_taken_before_others(tmp_path, examples):
    data = examples()
    assert data.are(read(write(tmp_path, data, audio=pa.array([b"x"] * 9))))


def test_names_of_classes_are_taken_from_the_metadata(tmp_path, examples, refusal):
    write(tmp_path, examples(), names=["a", "b", "c", "d"])
    assert read(tmp_path).classes == ("a", "b", "c", "d")
    data = examples()
    pq.write_table(table(data.test_images, data.test_labels, names=["b", "a", "c", "d"]),
                   tmp_path / "test.parquet")  # fmt: skip
    assert "the names of the classes are not those of" in refusal(tmp_path)


@pytest.mark.parametrize(
    "column", ["writer_id", "client", "client_id", "domain", "subject", "user"]
)
@pytest.mark.parametrize(
    ("owners", "names"),
    [
        (pa.array(["b", "a", "c"] * 3), ("a", "b", "c")),
        (pa.array([10, 9, 2] * 3), ("2", "9", "10")),
        (pa.array(["b", "a", "c"] * 3).dictionary_encode(), ("a", "b", "c")),
        (pa.array([True, False, True] * 3), ("false", "true")),
    ],
)
def test_a_column_of_owners_becomes_places_in_the_sorted_names(
    tmp_path, examples, column, owners, names
):
    found = read(write(tmp_path, examples(), **{column: owners}))
    assert found.domains == names
    words = [str(x).lower() for x in owners.to_pylist()]
    assert [names[place] for place in found.train.domains.tolist()] == words
    assert found.test.domains is None


def test_owners_with_names_are_called_by_them(tmp_path, examples):
    data = examples()
    features = {"domain": {"names": ["photo", "art"], "_type": "ClassLabel"}, "label": {}}
    made = table(data.train_images, data.train_labels, domain=pa.array([0, 1, 1] * 3))
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    write(tmp_path, data)
    pq.write_table(made.replace_schema_metadata(info), tmp_path / "train-00000-of-00001.parquet")
    found = read(tmp_path)
    assert (found.domains, found.classes) == (("art", "photo"), ("0", "1", "2"))
    assert found.train.domains.tolist() == [1, 0, 0] * 3


@pytest.mark.parametrize("odd", [-1, 2])
def test_an_owner_without_a_name_is_refused(tmp_path, examples, refusal, odd):
    data = examples()
    features = {"domain": {"names": ["photo", "art"]}, "label": {}}
    made = table(data.train_images, data.train_labels, domain=pa.array([0, 1, odd] * 3))
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    write(tmp_path, data)
    pq.write_table(made.replace_schema_metadata(info), tmp_path / "train-00000-of-00001.parquet")
    assert f"column domain has {odd}, and there are 2 names: 0 to 1" in refusal(tmp_path)


def replaced(data, **change) -> pa.Table:
    """Make a training table with other columns; None leaves one out."""
    columns = dict(
        zip(("image", "label"), table(data.train_images, data.train_labels), strict=True)
    )
    return pa.table({k: v for k, v in {**columns, **change}.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": None}, "no column of labels (label, labels, fine_label, character)"),
        ({"image": None}, "0 columns of image bytes"),
        ({"image": None, "a": [b"x"] * 9, "b": [b"x"] * 9}, "2 columns of image bytes"),
        ({"label": ["a"] * 9}, "column label is string, expected whole numbers"),
        ({"label": [0.5] * 9}, "column label is double, expected whole numbers"),
        ({"label": [0, 1, 2] * 2 + [None] * 3}, "column label has 3 empty cells"),
        ({"label": [0, 1, 5] * 3}, "labels include 5 but not 2"),
        ({"label": pa.array([0, 1, 3] * 3, pa.uint64())}, "labels include 3 but not 2"),
        ({"image": [b"no image"] * 9}, "row 0: it is none of PNG, JPEG"),
        ({"image": pa.array([None] * 9, pa.binary())}, "row 0: no image inside the file"),
        ({"image": pa.array([{"path": "x.png"}] * 9, STRUCT)}, "row 0: no image inside the file"),
        ({"client": ["a"] * 8 + [None]}, "column client has 1 empty cells"),
        ({"client": [["a"]] * 9}, "can't read"),
    ],
)
def test_columns_that_don_t_fit_are_one_line(tmp_path, examples, refusal, change, said):
    data = examples()
    file = write(tmp_path, data) / "train-00000-of-00001.parquet"
    pq.write_table(replaced(data, **change), file)
    assert str(file) in refusal(tmp_path)
    assert said in refusal(tmp_path)


def test_an_image_of_another_size_is_named_by_its_row(tmp_path, examples, refusal, monkeypatch):
    monkeypatch.setattr(arrow, "BATCH", 2)
    data, other = examples(), examples(shape=(1, 5, 5))
    write(tmp_path, data, shards=2)
    file = tmp_path / "train-00001-of-00002.parquet"
    pq.write_table(table([*data.test_images, *other.test_images], [0] * 6), file)
    assert f"{file}, row 3 holds grey images of 5 × 5" in refusal(tmp_path)


def test_a_missing_shard_or_split_is_one_line(tmp_path, examples, refusal):
    write(tmp_path, examples(), shards=3)
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    assert "2 of 3 files of the split found" in refusal(tmp_path)
    (tmp_path / "test.parquet").unlink()
    assert "has no test split" in refusal(tmp_path)


def test_an_empty_split_and_unreadable_metadata_are_one_line(tmp_path, examples, refusal):
    data = examples()
    write(tmp_path, data)
    whole = table(data.test_images, data.test_labels)
    pq.write_table(whole.slice(0, 0), tmp_path / "test.parquet")
    assert refusal(tmp_path).endswith("test.parquet: the split has no examples")
    pq.write_table(whole.replace_schema_metadata({"huggingface": "{"}), tmp_path / "test.parquet")
    assert f"can't read {tmp_path / 'test.parquet'}, metadata: " in refusal(tmp_path)


def test_damaged_files_are_one_line(tmp_path, examples, damage):
    write(tmp_path, examples())
    damage(tmp_path / "train-00000-of-00001.parquet", tmp_path)


def test_a_missing_pyarrow_is_one_line(tmp_path, examples, refusal, monkeypatch):
    write(tmp_path, examples())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    line = refusal(tmp_path)
    assert line.startswith("reading this needs pyarrow.parquet (import of pya")
    assert line.endswith('install fednf with its extra "data", see README')
